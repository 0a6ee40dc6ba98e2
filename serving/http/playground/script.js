// The playground: one set of controls. The images come from an engine: the service over HTTP, or the browser itself.

import { Animation } from "./animation.js";
import { Grid, columnsFor } from "./grid.js";
import { HttpEngine } from "./http_engine.js";
import { drawOn, imageAt } from "./images.js";
import { Labels } from "./labels.js";
import { copy, linkTo, stateInUrl } from "./link.js";
import { modelText, qualityText } from "./model_text.js";

const SCALE = 2; // of downloaded grids
const IMAGE_SCALE = 8; // of a downloaded image
const FRAMES = 24;
const MAX_GRID_IMAGES = 256;
const DEBOUNCE_MILLISECONDS = 120; // time without a change before the page requests images

const $ = (id) => document.getElementById(id);
const form = $("request").elements;
const narrow = matchMedia("(max-width: 45rem)");
const modelFile = document.querySelector("meta[name=model-file]")?.content; // only in a site of export-site
const engine = modelFile ? new (await import("./browser/engine.js")).BrowserEngine(modelFile) : new HttpEngine();
const grid = new Grid($("grid"), $("grid-image"), $("cells"), selectionChanged);
const animation = new Animation($("animation"), $("play"), $("frame"));
const running = {}; // AbortController of the latest request by purpose: a new request cancels the one before it
const errors = new Map(); // latest error message by purpose
let labels = null; // parser of labels, once the card is known; null for a model without classes
let shown = null; // fields of the request for the images that are shown
let timer;

function renewSignal(purpose) {
  running[purpose]?.abort();
  running[purpose] = new AbortController();
  return running[purpose].signal;
}

// Runs an action and shows its error, if any, until the next action with this purpose. Returns whether it succeeded.
async function attempt(purpose, action) {
  let success = false;
  try {
    await action();
    errors.delete(purpose);
    success = true;
  } catch (error) {
    if (error.name === "AbortError") return false; // a newer request replaced this one
    const needsToken = error.status === 401;
    errors.set(purpose, needsToken ? "The service requires its API token: enter it below" : error.message);
    if (needsToken) openTokenPanel();
  }
  $("error").textContent = [...errors.values()].join("\n");
  $("error").hidden = !errors.size;
  return success;
}

function openTokenPanel() {
  $("token-panel").hidden = false;
  $("token-panel").open = true;
  $("token").focus();
}

function requestFields() {
  const fields = { seed: Number(form.seed.value), first: Number(form.first.value), n: Number(form.n.value) };
  if (form.labels.value) fields.labels = form.labels.value;
  if (form.truncation.value !== "1") fields.truncation = Number(form.truncation.value);
  return fields;
}

function columns(fields) {
  let classes = 0;
  try {
    classes = fields.labels ? labels.parse(fields.labels).length : 0;
  } catch {
    // The engine reports the error.
  }
  return Math.min(columnsFor(classes, !narrow.matches), fields.n);
}

function className(label) {
  return labels?.names[label] ?? "";
}

function describe(index, label) {
  return label === undefined ? `Image ${index}` : `Image ${index}, label ${className(label)}`;
}

function redraw() {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    for (const purpose of ["download", "copy"]) errors.delete(purpose);
    if (!(await attempt("grid", drawGrid))) return;
    await showSelection();
    if (labels?.letters.length) await attempt("text", drawText);
  }, DEBOUNCE_MILLISECONDS);
}

async function drawGrid() {
  form.first.max = 2 ** 53 - Number(form.n.value);
  const invalid = document.querySelector("#request :invalid");
  if (invalid) throw new Error(`${invalid.name}: ${invalid.validationMessage}`);
  const fields = requestFields();
  const inRow = columns(fields);
  $("count").textContent = fields.n;
  $("truncation-value").textContent = form.truncation.value;
  $("command").textContent = engine.command(fields, inRow, SCALE);
  const signal = renewSignal("grid");
  grid.busy = true;
  try {
    const images = await engine.images(fields, signal);
    shown = fields;
    $("share").hidden = false;
    grid.show(images, fields.first, inRow, describe);
  } finally {
    if (!signal.aborted) grid.busy = false; // otherwise a newer request is still running
  }
}

function selectionChanged(index) {
  const [one, two] = grid.selected;
  if (index === undefined) $("status").textContent = "No image is selected";
  else if (!grid.selected.includes(index)) $("status").textContent = `Image ${index} is no longer selected`;
  else if (two === undefined) $("status").textContent = `Image ${one} is selected; select another to interpolate`;
  else $("status").textContent = `Images ${one} and ${two} are selected; the interpolation is shown`;
  showSelection();
}

// Shows the image that was selected last, and the interpolation if two are selected.
async function showSelection() {
  const index = grid.selected.at(-1);
  $("selection").hidden = index === undefined;
  $("interpolation").hidden = grid.selected.length < 2;
  if (index === undefined) return;
  const image = imageAt(grid.images, index - grid.first);
  const label = image.labels?.[0];
  drawOn($("image"), image, 1);
  $("image").ariaLabel = describe(index, label);
  $("image-description").textContent = `${describe(index, label)}, seed ${shown.seed}`;
  const url = engine.imageUrl(shown, index, className(label), IMAGE_SCALE);
  $("image-url").hidden = !url;
  Object.assign($("image-url").firstChild, { href: url ?? "", textContent: url ?? "" });
  if (grid.selected.length === 2) await attempt("interpolation", drawInterpolation);
}

async function drawInterpolation() {
  const [from, to] = grid.selected;
  const fields = { ...shown, from, to, frames: FRAMES };
  animation.show(await engine.interpolation(fields, renewSignal("interpolation")), FRAMES);
  $("animation").ariaLabel = `Interpolation from image ${from} to image ${to}`;
  $("endpoints").textContent = `From image ${from} to image ${to}`;
}

async function drawText() {
  const signal = renewSignal("text");
  const text = $("text").value;
  $("text-image").hidden = !text;
  if (!text) return;
  const indices = labels.parseCharacters(text);
  const { seed, truncation } = shown;
  const images = await engine.images({ seed, first: 0, n: indices.length, labels: indices, truncation }, signal);
  drawOn($("text-image"), images, images.n);
  $("text-image").ariaLabel = `${text} in generated handwriting`;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function download(name, makeBlob) {
  return attempt("download", async () => {
    $("status").textContent = `Preparing ${name}`;
    save(await makeBlob(shown), name);
    $("status").textContent = `${name} is downloaded`;
  });
}

function copyText(text, name) {
  return attempt("copy", async () => {
    await copy(text);
    $("status").textContent = `${name} copied`;
  });
}

// Returns a link to what is shown, with the given images selected.
function link(selected) {
  return linkTo({ model: engine.card.file_sha256, ...shown, images: selected.join(",") });
}

// Fills the form from the URL. Says so if the link is to another model, whose images are different.
function readUrl() {
  const { model, images, ...given } = stateInUrl();
  const values = model ? { labels: "", truncation: 1, ...given } : given; // links of this page leave these defaults out
  for (const name of ["seed", "first", "n", "labels", "truncation"]) {
    if (name in values) form[name].value = values[name];
  }
  if (images) grid.select(images.split(",").map(Number));
  const { name, file_sha256 } = engine.card;
  $("notice").hidden = !model || model === file_sha256;
  $("notice").textContent = `The link is to another model, ${model}. These are the images of ${name}, ${file_sha256}.`;
}

async function start() {
  await engine.open();
  $("content").hidden = false;
  $("token-panel").open = false;
  const { card } = engine;
  errors.clear();
  $("name").textContent = card.name;
  $("model").textContent = modelText(card, engine.fileBytes);
  $("quality").textContent = qualityText(card.quality);
  $("models").hidden = engine.models.length < 2;
  const models = engine.models.map(({ name, url, selected }) => anchor(url, name, selected ? "page" : null));
  $("models").replaceChildren("Models: ", ...models.flatMap(separate));
  labels = card.conditional ? new Labels(card.dataset.class_names) : null;
  $("labels").hidden = !labels;
  $("handwriting").hidden = !labels?.letters.length;
  form.n.max = Math.min(MAX_GRID_IMAGES, engine.maxGrid);
  form.labels.value = labels?.all() ?? "";
  $("text").value = labels?.letters.slice(0, 10).join("") ?? "";
  $("dataset-n").max = engine.maxArray;
  $("dataset-n").value = Math.min(1000, engine.maxArray);
  $("command").ariaLabel = engine.commandName;
  $("copy-command").textContent = `Copy ${engine.commandName}`;
  readUrl();
  redraw();
}

function anchor(href, textContent, ariaCurrent = null) {
  return Object.assign(document.createElement("a"), { href, textContent, ariaCurrent });
}

// Returns an element of a list, with a separator before it unless it is the first one.
function separate(element, i) {
  return i ? [" · ", element] : [element];
}

async function tryToStart() {
  if (!(await attempt("start", start))) $("model").textContent = "No model is loaded.";
}

$("links").append(...engine.links.map(([name, url]) => anchor(url, name)).flatMap(separate));
$("request").addEventListener("input", redraw);
$("request").addEventListener("submit", (event) => event.preventDefault());
$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  engine.token = $("token").value;
  tryToStart();
});
$("random-seed").addEventListener("click", () => {
  form.seed.value = Math.floor(Math.random() * 1e6);
  redraw();
});
$("text").addEventListener("input", () => shown && attempt("text", drawText));
$("copy-link").addEventListener("click", () => copyText(link(grid.selected), "Link"));
$("image-link").addEventListener("click", () => copyText(link(grid.selected.slice(-1)), "Link to the image"));
$("copy-command").addEventListener("click", () => copyText($("command").textContent, engine.commandName));
$("png").addEventListener("click", () =>
  download(`digits-${shown.seed}.png`, (fields) => engine.png(fields, columns(fields), SCALE)),
);
$("image-png").addEventListener("click", () => {
  const index = grid.selected.at(-1);
  download(`digit-${shown.seed}-${index}.png`, (fields) =>
    engine.png({ ...fields, first: index, n: 1 }, 1, IMAGE_SCALE),
  );
});
$("dataset").addEventListener("submit", (event) => {
  event.preventDefault();
  const n = Number($("dataset-n").value);
  download(`digits-${shown.seed}.npz`, (fields) => engine.npz({ ...fields, n }));
});
addEventListener("hashchange", () => {
  if (!engine.card) return; // start reads the URL
  readUrl();
  redraw();
});
narrow.addEventListener("change", redraw);

tryToStart();

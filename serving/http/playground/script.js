// The page uses only the public API. The curl command that it shows requests the same grid.

const SCALE = 2;
const FRAMES = 24;
const DEBOUNCE_MILLISECONDS = 120; // time without a change before the page sends a request

const $ = (id) => document.getElementById(id);
const form = $("request").elements;
const running = {}; // AbortController of the latest request by purpose: a new request cancels the one before it
const blobUrls = {}; // URL of the blob in each image element; revoked to free its memory
let card = null;
let selected = []; // indices of the selected images, at most two
let timer;

function headers() {
  const token = form.token.value;
  return { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
}

async function post(route, body, purpose = route) {
  running[purpose]?.abort();
  running[purpose] = new AbortController();
  const response = await fetch(route, {
    method: "POST",
    headers: headers(),
    body: JSON.stringify(body),
    signal: running[purpose].signal,
  });
  if (!response.ok) {
    const { error } = await response.json();
    throw new Error(error.field ? `${error.field}: ${error.message}` : error.message);
  }
  return response.blob();
}

// Runs an action and shows its error, if any, on the page.
async function attempt(action) {
  try {
    await action();
    $("error").hidden = true;
  } catch (error) {
    if (error.name === "AbortError") return; // a newer request replaced this one
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

function show(id, blob, description) {
  URL.revokeObjectURL(blobUrls[id]);
  $(id).src = blobUrls[id] = URL.createObjectURL(blob);
  $(id).alt = description;
}

function requestFields() {
  const fields = { seed: Number(form.seed.value), first: Number(form.first.value), n: Number(form.n.value) };
  if (form.labels.value) fields.labels = form.labels.value; // the service parses it (docs/labels.md)
  if (form.truncation.value !== "1") fields.truncation = Number(form.truncation.value);
  return fields;
}

function columns() {
  return Math.min(Number(form.n.value), innerWidth < 720 ? 8 : 16);
}

function curl(body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`; // quoted for a POSIX shell
  const token = form.token.value ? " -H \"authorization: Bearer $TOKEN\"" : "";
  const url = quoted(new URL("generate", location.href).href);
  return `curl -X POST ${url} -H 'content-type: application/json'${token} -d ${quoted(JSON.stringify(body))} -o digits.png`;
}

async function drawGrid() {
  const body = { ...requestFields(), columns: columns(), scale: SCALE };
  $("count").textContent = body.n;
  $("truncation-value").textContent = form.truncation.value;
  $("curl").textContent = curl(body);
  $("grid").ariaBusy = "true";
  const blob = await post("generate", body);
  show("grid-image", blob, `${body.n} generated images, ${body.columns} per row`);
  drawCells(body);
  $("grid").ariaBusy = "false";
}

function drawCells({ first, n, columns }) {
  const cells = Array.from({ length: n }, (_, i) => {
    const cell = document.createElement("button");
    cell.type = "button";
    cell.ariaLabel = `Image ${first + i}`;
    cell.ariaPressed = selected.includes(first + i);
    cell.tabIndex = i ? -1 : 0; // the Tab key stops at the grid once; arrow keys move inside it
    cell.value = first + i;
    return cell;
  });
  const rows = Math.ceil(n / columns);
  $("cells").style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
  $("cells").replaceChildren(...cells);
}

function move(event) {
  const cells = [...$("cells").children];
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
  const next = cells[cells.indexOf(document.activeElement) + steps[event.key]];
  if (!next) return;
  event.preventDefault();
  document.activeElement.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function toggle(cell) {
  const index = Number(cell.value);
  selected = selected.includes(index) ? selected.filter((other) => other !== index) : [...selected, index].slice(-2);
  for (const other of $("cells").children) other.ariaPressed = selected.includes(Number(other.value));
  $("interpolation").hidden = selected.length < 2;
  if (selected.length === 2) attempt(drawInterpolation);
}

async function drawInterpolation() {
  const labels = form.labels.value;
  const [from, to] = selected.map((index) => ({ seed: Number(form.seed.value), index, ...(labels && { labels }) }));
  const truncation = Number(form.truncation.value);
  const blob = await post("interpolate", { from, to, frames: FRAMES, format: "gif", scale: 8, truncation });
  show("animation", blob, `Interpolation from image ${from.index} to image ${to.index}`);
  $("endpoints").textContent = `From image ${from.index} to image ${to.index} of seed ${from.seed}`;
}

async function drawText() {
  const text = $("text").value;
  if (!text) return;
  const body = { text, seed: Number(form.seed.value), truncation: Number(form.truncation.value), scale: SCALE };
  show("text-image", await post("write", body), `${text} in generated handwriting`);
}

function redraw() {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    if (!$("request").checkValidity()) {
      const invalid = document.querySelector("#request :invalid");
      $("error").textContent = `${invalid.name}: ${invalid.validationMessage}`;
      $("error").hidden = false;
      return;
    }
    await attempt(async () => {
      await drawGrid();
      if (selected.length === 2) await drawInterpolation();
      if (card.conditional) await drawText();
    });
  }, DEBOUNCE_MILLISECONDS);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy(text, name) {
  await navigator.clipboard.writeText(text);
  $("copied").textContent = `${name} copied`;
}

async function start() {
  const response = await fetch("card", { headers: headers() });
  if (!response.ok) throw new Error((await response.json()).error.message);
  card = await response.json();
  const classes = card.conditional ? card.dataset.class_names : [];
  $("model").textContent = `${card.name}${classes.length ? `: ${classes.join(" ")}` : ""}`;
  for (const element of document.querySelectorAll(".classes")) element.hidden = !card.conditional;
  if (classes.length && classes.every((name) => name.length === 1)) {
    form.labels.value = classes.join("");
    $("text").value = classes.join("").slice(0, 64);
  }
  redraw();
}

$("request").addEventListener("input", (event) => {
  if (event.target.name === "token" && !card) attempt(start);
  else redraw();
});
$("request").addEventListener("submit", (event) => event.preventDefault());
$("random-seed").addEventListener("click", () => {
  form.seed.value = Math.floor(Math.random() * 1e6);
  redraw();
});
$("cells").addEventListener("click", (event) => event.target.closest("button") && toggle(event.target));
$("cells").addEventListener("keydown", (event) => event.key.startsWith("Arrow") && move(event));
$("text").addEventListener("input", () => attempt(drawText));
$("png").addEventListener("click", () =>
  attempt(async () => {
    const body = { ...requestFields(), columns: columns(), scale: SCALE };
    save(await post("generate", body, "png"), `digits-${body.seed}.png`);
  }),
);
$("npz").addEventListener("click", () =>
  attempt(async () => save(await post("dataset", requestFields()), `digits-${form.seed.value}.npz`)),
);
$("copy-json").addEventListener("click", () =>
  attempt(() => copy(JSON.stringify({ model: card.file_sha256, ...requestFields() }), "Request")),
);
$("copy-curl").addEventListener("click", () => attempt(() => copy($("curl").textContent, "curl command")));

attempt(start);

// The page speaks only the public API; what it shows can be asked for again with the curl that it prints.

const SCALE = 2;
const FRAMES = 24;
const WAIT = 120; // milliseconds without a change before it asks

const $ = (id) => document.getElementById(id);
const form = $("address").elements;
const running = {}; // the newest request of each picture, so that an older one never overtakes it
const pictures = {}; // blob URLs, which have to be given back
let card = null;
let chosen = []; // indices of the two images to morph between
let timer;

function headers() {
  const token = form.token.value;
  return { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
}

async function ask(route, body, purpose = route) {
  running[purpose]?.abort();
  running[purpose] = new AbortController();
  const answer = await fetch(route, {
    method: "POST",
    headers: headers(),
    body: JSON.stringify(body),
    signal: running[purpose].signal,
  });
  if (!answer.ok) {
    const { error } = await answer.json();
    throw new Error(error.field ? `${error.field}: ${error.message}` : error.message);
  }
  return answer.blob();
}

async function attempt(action) {
  try {
    await action();
    $("error").hidden = true;
  } catch (error) {
    if (error.name === "AbortError") return; // a newer request has taken its place
    $("error").textContent = error.message;
    $("error").hidden = false;
  }
}

function show(id, blob, description) {
  URL.revokeObjectURL(pictures[id]);
  $(id).src = pictures[id] = URL.createObjectURL(blob);
  $(id).alt = description;
}

function address() {
  const told = { seed: Number(form.seed.value), first: Number(form.first.value), n: Number(form.n.value) };
  if (form.labels.value) told.labels = form.labels.value; // the service reads it, by the rule of docs/labels.md
  if (form.truncation.value !== "1") told.truncation = Number(form.truncation.value);
  return told;
}

function columns() {
  return Math.min(Number(form.n.value), innerWidth < 720 ? 8 : 16);
}

function curl(body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`; // for the shell
  const token = form.token.value ? " -H \"authorization: Bearer $TOKEN\"" : "";
  const url = quoted(new URL("generate", location.href).href);
  return `curl -X POST ${url} -H 'content-type: application/json'${token} -d ${quoted(JSON.stringify(body))} -o sheet.png`;
}

async function drawSheet() {
  const body = { ...address(), columns: columns(), scale: SCALE };
  $("count").textContent = body.n;
  $("strength").textContent = form.truncation.value;
  $("curl").textContent = curl(body);
  $("sheet").ariaBusy = "true";
  const blob = await ask("generate", body);
  show("picture", blob, `${body.n} generated images, ${body.columns} a row`);
  drawCells(body);
  $("sheet").ariaBusy = "false";
}

function drawCells({ first, n, columns }) {
  const cells = Array.from({ length: n }, (_, i) => {
    const cell = document.createElement("button");
    cell.type = "button";
    cell.ariaLabel = `Image ${first + i}`;
    cell.ariaPressed = chosen.includes(first + i);
    cell.tabIndex = i ? -1 : 0; // one stop for the tabulator; the arrows do the rest
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

function choose(cell) {
  const index = Number(cell.value);
  chosen = chosen.includes(index) ? chosen.filter((other) => other !== index) : [...chosen, index].slice(-2);
  for (const other of $("cells").children) other.ariaPressed = chosen.includes(Number(other.value));
  $("morph").hidden = chosen.length < 2;
  if (chosen.length === 2) attempt(drawMorph);
}

async function drawMorph() {
  const labels = form.labels.value;
  const [from, to] = chosen.map((index) => ({ seed: Number(form.seed.value), index, ...(labels && { labels }) }));
  const truncation = Number(form.truncation.value);
  const blob = await ask("interpolate", { from, to, frames: FRAMES, format: "gif", scale: 8, truncation });
  show("film", blob, `Image ${from.index} turning into image ${to.index}`);
  $("ends").textContent = `Image ${from.index} and image ${to.index} of seed ${from.seed}`;
}

async function drawText() {
  const text = $("text").value;
  if (!text) return;
  const body = { text, seed: Number(form.seed.value), truncation: Number(form.truncation.value), scale: SCALE };
  show("strip", await ask("write", body), `${text} in generated handwriting`);
}

function redraw() {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    if (!$("address").checkValidity()) {
      const wrong = document.querySelector("#address :invalid");
      $("error").textContent = `${wrong.name}: ${wrong.validationMessage}`;
      $("error").hidden = false;
      return;
    }
    await attempt(async () => {
      await drawSheet();
      if (chosen.length === 2) await drawMorph();
      if (card.conditional) await drawText();
    });
  }, WAIT);
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function copy(text, what) {
  await navigator.clipboard.writeText(text);
  $("copied").textContent = `${what} copied`;
}

async function start() {
  const answer = await fetch("card", { headers: headers() });
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  card = await answer.json();
  const classes = card.conditional ? card.dataset.class_names : [];
  $("model").textContent = `${card.name}${classes.length ? `: ${classes.join(" ")}` : ""}`;
  for (const element of document.querySelectorAll(".classes")) element.hidden = !card.conditional;
  if (classes.length && classes.every((name) => name.length === 1)) {
    form.labels.value = classes.join("");
    $("text").value = classes.join("").slice(0, 64);
  }
  redraw();
}

$("address").addEventListener("input", (event) => {
  if (event.target.name === "token" && !card) attempt(start);
  else redraw();
});
$("address").addEventListener("submit", (event) => event.preventDefault());
$("another").addEventListener("click", () => {
  form.seed.value = Math.floor(Math.random() * 1e6);
  redraw();
});
$("cells").addEventListener("click", (event) => event.target.closest("button") && choose(event.target));
$("cells").addEventListener("keydown", (event) => event.key.startsWith("Arrow") && move(event));
$("text").addEventListener("input", () => attempt(drawText));
$("png").addEventListener("click", () =>
  attempt(async () => {
    const body = { ...address(), columns: columns(), scale: SCALE };
    save(await ask("generate", body, "png"), `sheet-${body.seed}.png`);
  }),
);
$("npz").addEventListener("click", () =>
  attempt(async () => save(await ask("dataset", address()), `images-${form.seed.value}.npz`)),
);
$("copy-address").addEventListener("click", () =>
  attempt(() => copy(JSON.stringify({ model: card.file_sha256, ...address() }), "Address")),
);
$("copy-curl").addEventListener("click", () => attempt(() => copy($("curl").textContent, "curl")));

attempt(start);

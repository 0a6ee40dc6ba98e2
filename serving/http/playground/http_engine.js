// The engine that requests images from the service. It uses only the public HTTP API.

import { readNpz } from "./npz.js";

const IMAGE_ROUTE = "/images/{seed}/{index}.png";
const MAX_ERROR_CHARACTERS = 500;

export class HttpEngine {
  commandName = "curl command";
  links = [["HTTP API", "./"], ["Model card", "card"]];
  token = "";
  model = new URLSearchParams(location.search).get("model") ?? undefined; // name of the model; undefined: the default one

  // Requests the card, the models and the limits. Throws an error with `status` 401 if the service requires another token.
  async open() {
    const cardUrl = this.model === undefined ? "card" : `card?${new URLSearchParams({ model: this.model })}`;
    const [card, models, document] = await Promise.all([cardUrl, "models", "docs.json"].map((url) => this.#request(url)));
    this.models = (await models.json()).models.map(({ name, ...state }) => ({
      name,
      selected: this.model === undefined ? state.default : name === this.model,
      url: `?${new URLSearchParams({ model: name })}`,
    }));
    this.fileBytes = Number(card.headers.get("x-model-bytes")) || null;
    this.card = await card.json();
    const { paths, components } = await document.json();
    const maximum = (model) => components.schemas[model].properties.n.maximum;
    this.maxArray = maximum("GenerateDataset");
    this.maxGrid = Math.min(maximum("Generate"), this.maxArray);
    this.imageFields = paths[IMAGE_ROUTE]?.get?.parameters?.map(({ name }) => name);
  }

  // Returns images `first` to `first + n - 1` of a seed (images.js has the format).
  async images(fields, signal) {
    const response = await this.#post("dataset", fields, signal);
    if (response.headers.get("x-model") !== this.card.file_sha256) {
      throw new Error("The service serves another model than before: reload the page");
    }
    const { images, labels } = readNpz(await response.arrayBuffer());
    const [n, height, width, channels = 1] = images.shape;
    return { pixels: images.values, n, height, width, channels, labels: labels ? Array.from(labels.values, Number) : null };
  }

  // Returns an ImageBitmap of a row of frames.
  async interpolation({ seed, from, to, labels, truncation, frames }, signal) {
    const ends = [from, to].map((index) => ({ seed, index, ...(labels && { labels }) }));
    const body = { from: ends[0], to: ends[1], frames, format: "png", scale: 1, truncation };
    return createImageBitmap(await (await this.#post("interpolate", body, signal)).blob());
  }

  async png(fields, columns, scale, signal) {
    return (await this.#post("generate", { ...fields, columns, scale }, signal)).blob();
  }

  async npz(fields, signal) {
    return (await this.#post("dataset", fields, signal)).blob();
  }

  // Returns the command that requests the same grid.
  command(fields, columns, scale) {
    const url = quote(new URL("generate", location.href).href);
    const token = this.token && " -H \"authorization: Bearer $TOKEN\"";
    const body = quote(JSON.stringify({ ...fields, columns, scale, model: this.model }));
    return `curl -X POST ${url} -H 'content-type: application/json'${token} -d ${body} -o digits.png`;
  }

  // Returns the URL of one image, or null if the service has no such route. label: name of its class, or "".
  imageUrl({ seed, truncation }, index, label, scale) {
    if (!this.imageFields) return null;
    const url = new URL(IMAGE_ROUTE.slice(1).replace("{seed}", seed).replace("{index}", index), location.href);
    const values = { label, truncation, scale, model: this.model, v: this.card.file_sha256.slice(0, 12) };
    for (const [name, value] of Object.entries(values)) {
      if (value && this.imageFields.includes(name)) url.searchParams.set(name, value);
    }
    return url.href;
  }

  #post(route, body, signal) {
    return this.#request(route, { method: "POST", body: JSON.stringify({ ...body, model: this.model }), signal });
  }

  async #request(route, options = {}) {
    const headers = { "content-type": "application/json", ...(this.token && { authorization: `Bearer ${this.token}` }) };
    const response = await fetch(route, { headers, ...options });
    if (response.ok) return response;
    throw Object.assign(new Error(errorMessage(response, await response.text())), { status: response.status });
  }
}

// A proxy in front of the service may respond with any text or with none.
function errorMessage(response, text) {
  try {
    const { field, message } = JSON.parse(text).error;
    return field ? `${field}: ${message}` : message;
  } catch {
    return text.trim().slice(0, MAX_ERROR_CHARACTERS) || `HTTP ${response.status} ${response.statusText}`;
  }
}

// Quotes a text for a POSIX shell.
export function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

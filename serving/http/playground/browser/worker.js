// Runs the model outside of the thread of the page. A message { id, method, argument } calls a method below; the
// response is { id, result } or { id, error }. A message { cancel: id } ends a call early.

import { Generator } from "./generator.js";
import { npz, png } from "./image_files.js";

let generator;
const cancelled = new Set();
let queue = Promise.resolve(); // the calls, one after the other: onnxruntime-web runs one at a time

const methods = {
  async open(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: HTTP ${response.status} ${response.statusText}`);
    const file = new Uint8Array(await response.arrayBuffer());
    generator = await Generator.open(file);
    return { card: generator.card, fileBytes: file.length };
  },
  images,
  async interpolation(argument) {
    return channelsLast(await generator.interpolation(argument), argument.frames, null);
  },
  async png({ fields, columns, scale }, id) {
    return png(await images(fields, id), columns, scale);
  },
  async npz(fields, id) {
    return npz(await images(fields, id));
  },
};

// Returns images as images.js describes them.
async function images(fields, id) {
  const { latents, labels } = generator.draw(fields);
  const pixels = await generator.decode(latents, labels, async () => {
    await new Promise((resume) => setTimeout(resume)); // lets a message { cancel } arrive
    if (cancelled.has(id)) throw new Error("cancelled");
  });
  return channelsLast(pixels, fields.n, labels);
}

function channelsLast(pixels, n, labels) {
  const [channels, height, width] = generator.card.image_shape;
  const size = height * width;
  if (channels === 1) return { pixels, n, height, width, channels, labels };
  const moved = pixels.map((_, i) => {
    const image = Math.floor(i / (size * channels));
    const position = i - image * size * channels;
    return pixels[image * size * channels + (position % channels) * size + Math.floor(position / channels)];
  });
  return { pixels: moved, n, height, width, channels, labels };
}

async function respond({ id, method, argument }) {
  try {
    if (cancelled.has(id)) return;
    const result = await methods[method](argument, id);
    postMessage({ id, result }, result.pixels ? [result.pixels.buffer] : []);
  } catch (error) {
    postMessage({ id, error: error.message });
  } finally {
    cancelled.delete(id);
  }
}

addEventListener("message", ({ data }) => {
  if ("cancel" in data) cancelled.add(data.cancel);
  else queue = queue.then(() => respond(data));
});

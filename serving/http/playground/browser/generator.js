// The generator of a model file: checked as models/onnx_file/generator.py checks it, and run with onnxruntime-web.

import * as ort from "../../onnxruntime-web/ort.js";
import { Labels } from "../labels.js";
import { compareGolden } from "./golden.js";
import { drawLatents, interpolate } from "./latents.js";
import { checkedCard } from "./model_file.js";

const ROWS_PER_RUN = 64;
const MAX_RUN_PIXELS = 2 ** 20; // images are computed in smaller runs if they are large, which bounds the memory

ort.env.wasm.numThreads = 1; // more threads need headers that a static host does not send
ort.env.wasm.wasmPaths = { wasm: new URL("../../onnxruntime-web/ort-wasm-simd-threaded.wasm", import.meta.url).href };

export class Generator {
  // Opens a file, a Uint8Array. Throws an error if a check fails.
  static async open(file) {
    const generator = new Generator();
    const card = await checkedCard(file);
    generator.card = card;
    generator.labels = card.conditional ? new Labels(card.dataset.class_names) : null;
    generator.size = card.image_shape.reduce((product, length) => product * length);
    try {
      generator.session = await ort.InferenceSession.create(file, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
    } catch (error) {
      throw new Error(`onnxruntime rejects the file: ${error.message}`);
    }
    await compareGolden(await generator.images({ seed: card.golden.seed, first: 0, n: card.golden.n }), card);
    return generator;
  }

  // Returns pixels (n, channels, height, width) and labels of images of a seed.
  async images(fields, rest) {
    const { latents, labels } = this.draw(fields);
    return this.decode(latents, labels, rest);
  }

  // Draws the latents and labels of images `first` to `first + n - 1` of a seed.
  // labels: a text, or an array of class indices, which are repeated: image i gets label i modulo their number.
  draw({ seed, first, n, labels, truncation = 1 }) {
    if (!(truncation > 0 && truncation <= 1)) throw new Error(`truncation: must be above 0 and at most 1, got ${truncation}`);
    const { conditional, name, latent_dim: size, dataset } = this.card;
    if (labels !== undefined && !conditional) throw new Error(`labels: ${name} was trained without classes and takes none`);
    const weights = conditional ? (dataset.class_counts ?? dataset.class_names.map(() => 1)) : [];
    const drawn = drawLatents(seed, first, n, size, weights);
    const factor = Math.fround(truncation);
    if (factor !== 1) drawn.latents.forEach((value, i) => (drawn.latents[i] = value * factor));
    if (labels === undefined) return drawn;
    const classes = typeof labels === "string" ? this.labels.parse(labels) : labels;
    // first + i can be larger than 2^53 only for values that drawLatents rejects.
    return { ...drawn, labels: drawn.labels.map((_, i) => classes[(first + i) % classes.length]) };
  }

  // Turns latents and labels into pixels (n, channels, height, width). Calls onRun between two runs of the network.
  async decode(latents, labels, onRun = async () => {}) {
    const { latent_dim: size, image_shape: shape } = this.card;
    const n = latents.length / size;
    const rows = Math.max(1, Math.min(ROWS_PER_RUN, Math.floor(MAX_RUN_PIXELS / this.size)));
    const pixels = new Uint8Array(n * this.size);
    for (let start = 0; start < n; start += rows) {
      if (start) await onRun();
      const stop = Math.min(start + rows, n);
      const feeds = { latent: new ort.Tensor("float32", latents.subarray(start * size, stop * size), [stop - start, size]) };
      if (labels) feeds.label = new ort.Tensor("int64", BigInt64Array.from(labels.slice(start, stop), BigInt), [stop - start]);
      const { image } = await this.session.run(feeds);
      if (String(image.dims) !== String([stop - start, ...shape])) throw new Error(`image: it has the shape ${image.dims}`);
      pixels.set(image.data, start * this.size);
    }
    return pixels;
  }

  // Returns the pixels of `frames` images between two images of a seed. If their classes differ, they are cross-faded.
  async interpolation({ seed, from, to, labels, truncation, frames }) {
    const [start, end] = [from, to].map((index) => this.draw({ seed, first: index, n: 1, labels, truncation }));
    const latents = interpolate(start.latents, end.latents, frames);
    const decode = (label) => this.decode(latents, label && Array(frames).fill(label[0]));
    const first = await decode(start.labels);
    if (!start.labels || start.labels[0] === end.labels[0]) return first;
    const last = await decode(end.labels);
    return first.map((value, i) => {
      const share = Math.floor(i / this.size) / (frames - 1);
      return roundHalfEven((1 - share) * value + share * last[i]);
    });
  }
}

// Rounds as NumPy does.
function roundHalfEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

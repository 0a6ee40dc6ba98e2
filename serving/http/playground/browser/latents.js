// Seeded latents, version 1, as models/onnx_file/latents.py draws them.

import { randomWords } from "./philox.js";

export const LATENTS_VERSION = 1;
const INDEX_LIMIT = 2 ** 53;

// Draws the latents and labels of images `first` to `first + n - 1` of a seed.
// counts: weight of each class; empty for no labels. Returns { latents: Float32Array (n x size), labels: array or null }.
export function drawLatents(seed, first, n, size, counts) {
  checkRange(seed, first, n);
  const half = Math.ceil(size / 2);
  const blocks = Math.ceil((2 * half + 1) / 4); // of 4 words, for each image
  const words = randomWords(BigInt(seed), BigInt(first) * BigInt(blocks), n * blocks);
  const latents = new Float32Array(n * size);
  const cumulative = [];
  for (const count of counts) cumulative.push((cumulative.at(-1) ?? 0) + count);
  const labels = counts.length ? [] : null;
  for (let image = 0; image < n; image++) {
    const start = image * blocks * 4;
    for (let i = 0; i < half; i++) { // the Box-Muller transform
      const radius = Math.sqrt(-2 * Math.log1p(-uniform(words, start + i)));
      const angle = 2 * Math.PI * uniform(words, start + half + i);
      latents[image * size + i] = radius * Math.cos(angle);
      if (half + i < size) latents[image * size + half + i] = radius * Math.sin(angle);
    }
    if (labels) {
      const drawn = Math.floor(uniform(words, start + 2 * half) * cumulative.at(-1));
      labels.push(cumulative.findIndex((sum) => sum > drawn));
    }
  }
  return { latents, labels };
}

function checkRange(seed, first, n) {
  if (!(Number.isInteger(seed) && seed >= 0 && seed < INDEX_LIMIT)) throw new Error(`seed: must be from 0 to 2^53 - 1, got ${seed}`);
  if (!(Number.isInteger(n) && n >= 1)) throw new Error(`n: must be at least 1, got ${n}`);
  if (!(Number.isInteger(first) && first >= 0 && first <= INDEX_LIMIT - n)) {
    throw new Error(`first: must be from 0 to 2^53 - n, got ${first}, with n ${n}`);
  }
}

// A number in [0, 1) from the upper 53 bits of word i.
function uniform(words, i) {
  return (words[2 * i + 1] * 2 ** 21 + (words[2 * i] >>> 11)) * 2 ** -53;
}

// Interpolates between two latents along a great circle, as `interpolate` in models/onnx_file/latents.py does.
export function interpolate(start, end, n) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const [a, b] = [Array.from(start), Array.from(end)];
  const cosine = dot(a, b) / Math.max(Math.sqrt(dot(a, a)) * Math.sqrt(dot(b, b)), 1e-12);
  const angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
  const sine = Math.sin(angle);
  const latents = new Float32Array(n * a.length);
  for (let row = 0; row < n; row++) {
    const step = row / (n - 1);
    // For the same and for opposite directions the great circle is not unique.
    const [from, to] = sine < 1e-6 ? [1 - step, step] : [Math.sin((1 - step) * angle) / sine, Math.sin(step * angle) / sine];
    a.forEach((value, i) => {
      latents[row * a.length + i] = from * value + to * b[i];
    });
  }
  return latents;
}

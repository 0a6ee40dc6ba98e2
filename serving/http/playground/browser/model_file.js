// Reads a model file and checks its checksum and its card, with the messages of Python (models/onnx_file).

import { LATENTS_VERSION } from "./latents.js";
import { GOLDEN_BOUNDS } from "./golden.js";

const CARD_VERSION = 3;
const METADATA_PROPS = 14; // field of onnx.ModelProto
const KEY = 1; // fields of onnx.StringStringEntryProto
const VALUE = 2;
const LENGTH_DELIMITED = 2; // wire type of Protocol Buffers
const EMPTY_CHECKSUM = "0".repeat(64);

const isSize = (value) => Number.isInteger(value) && value >= 1 && value <= 2 ** 16;
const isText = (value) => typeof value === "string";
const isTexts = (value) => Array.isArray(value) && value.every(isText) && new Set(value).size === value.length;
const isCounts = (value) => value === null || (Array.isArray(value) && value.every((count) => Number.isInteger(count) && count >= 0));
const FIELDS = {
  name: isText,
  latent_dim: isSize,
  latents_version: Number.isInteger,
  image_shape: (value) => Array.isArray(value) && value.length === 3 && value.every(isSize),
  conditional: (value) => typeof value === "boolean",
  precision: (value) => Object.hasOwn(GOLDEN_BOUNDS, value),
  "dataset.name": isText,
  "dataset.class_names": isTexts,
  "dataset.class_counts": isCounts,
  "golden.seed": Number.isSafeInteger,
  "golden.n": (value) => Number.isInteger(value) && value >= 1 && value <= 64,
  "golden.pixels": isText,
};

// Checks a file, a Uint8Array, and returns its card. Throws an error if a check fails.
export async function checkedCard(file) {
  const sha256 = await verifyChecksum(file);
  const card = readCard(file);
  if (card.file_sha256 !== sha256) throw new Error("card: its file_sha256 is not the checksum of the file");
  if (card.latents_version !== LATENTS_VERSION) {
    throw new Error(`card: its latents are of version ${card.latents_version}; this program draws version ${LATENTS_VERSION}`);
  }
  return card;
}

// Checks that no byte of a file has changed since its checksum was written, and returns the checksum.
export async function verifyChecksum(file) {
  if (!globalThis.crypto?.subtle) {
    throw new Error("This page cannot verify the model file: browsers compute SHA-256 only over https and on localhost. Open it over https");
  }
  const text = new TextDecoder("latin1").decode(file); // one character for each byte
  const found = [...text.matchAll(/file_sha256\\?": \\?"([0-9a-f]{64})\\?"/dg)];
  if (found.length !== 1) {
    throw new Error(
      "checksum: the file is truncated or was not written by mnist-gan: " +
        `it contains ${found.length.toLocaleString("en")} checksums instead of 1`,
    );
  }
  const stated = found[0][1];
  const copy = file.slice();
  copy.set(new TextEncoder().encode(EMPTY_CHECKSUM), found[0].indices[1][0]);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", copy));
  const actual = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (stated !== actual) {
    throw new Error(`checksum: the file is damaged; its SHA-256 ${actual} differs from the checksum ${stated} that it contains`);
  }
  return stated;
}

function readCard(file) {
  const texts = [];
  for (const entry of fields(file, METADATA_PROPS)) {
    const [key, value] = [KEY, VALUE].map((field) => new TextDecoder().decode(fields(entry, field)[0]));
    if (key === "card") texts.push(value);
  }
  if (texts.length !== 1) throw new Error(`card: the file has ${texts.length} cards, exactly one is required`);
  let card;
  try {
    card = JSON.parse(texts[0]);
  } catch {
    // The next check fails.
  }
  if (card?.card_version === undefined) throw new Error("card: it is not JSON with a card_version");
  if (card.card_version !== CARD_VERSION) {
    throw new Error(`card: it is of version ${JSON.stringify(card.card_version)}, this program reads version ${CARD_VERSION}`);
  }
  for (const [path, isValid] of Object.entries(FIELDS)) {
    const value = path.split(".").reduce((object, name) => object?.[name], card);
    if (!isValid(value)) throw new Error(`card: ${path}: the value is not valid, got ${String(JSON.stringify(value)).slice(0, 60)}`);
  }
  return card;
}

// Returns the values of a length-delimited field of a Protocol Buffers message, as Uint8Arrays.
function fields(message, wanted) {
  const values = [];
  let at = 0;
  const readNumber = () => {
    let number = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = message[at++];
      number += (byte & 127) * factor;
      if (!(byte & 128)) return number; // undefined, after the end, counts as 0
    }
  };
  while (at < message.length) {
    const tag = readNumber();
    const type = tag % 8;
    if (type === LENGTH_DELIMITED) {
      const end = readNumber() + at;
      if (Math.floor(tag / 8) === wanted) values.push(message.subarray(at, end));
      at = end;
    } else if (type === 0) readNumber();
    else if (type === 1 || type === 5) at += type === 1 ? 8 : 4;
    else throw new Error(`format: not an ONNX file (wire type ${type})`);
  }
  return values;
}

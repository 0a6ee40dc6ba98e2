// The engine that runs the model in the browser. It has the same methods as the engine in http_engine.js.

import { toImageData } from "../images.js";
import { quote } from "../http_engine.js";

const MAX_ARRAY_IMAGES = 10_000;

export class BrowserEngine {
  commandName = "sample command";
  models = [];
  maxGrid = 1024;
  maxArray = MAX_ARRAY_IMAGES;
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #calls = new Map(); // functions that settle the promise of each call, by its id
  #lastId = 0;

  constructor(modelFile) {
    this.modelFile = modelFile;
    this.links = [["Model file", modelFile]];
    this.#worker.addEventListener("message", ({ data: { id, result, error } }) => {
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) call?.resolve(result);
      else call?.reject(new Error(error));
    });
    this.#worker.addEventListener("error", () => {
      for (const { reject } of this.#calls.values()) reject(new Error("The model cannot run in this browser; its console has the reason"));
    });
  }

  // Loads the model file and checks it.
  async open() {
    Object.assign(this, await this.#call("open", new URL(this.modelFile, location.href).href));
  }

  images(fields, signal) {
    return this.#call("images", fields, signal);
  }

  async interpolation(fields, signal) {
    return createImageBitmap(toImageData(await this.#call("interpolation", fields, signal), fields.frames));
  }

  png(fields, columns, scale, signal) {
    return this.#call("png", { fields, columns, scale }, signal);
  }

  npz(fields, signal) {
    return this.#call("npz", fields, signal);
  }

  // Returns the command that makes the same grid.
  command(fields, columns, scale) {
    const options = Object.entries({ ...fields, columns, scale }).map(([name, value]) => `--${name} ${name === "labels" ? quote(value) : value}`);
    return `sample ${this.modelFile} ${options.join(" ")} --out digits.png`;
  }

  imageUrl() {
    return null; // no server makes an image
  }

  #call(method, argument, signal) {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      signal?.addEventListener("abort", () => {
        if (!this.#calls.delete(id)) return;
        this.#worker.postMessage({ cancel: id });
        reject(signal.reason);
      });
      this.#worker.postMessage({ id, method, argument });
    });
  }
}

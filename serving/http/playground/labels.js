// Parses labels by the rule of docs/labels.md, as models/onnx_file/labels.py does.

const NUMBER = /^[+-]?\p{Nd}+(\.\p{Nd}+)?$/u;
const MAX_LISTED = 100; // maximum number of classes that an error message lists

export class Labels {
  // names: distinct names of the classes, in the order of their indices.
  constructor(names) {
    this.names = names;
    this.byName = new Map(names.map((name, index) => [name, index]));
    this.hasNumericName = names.some((name) => NUMBER.test(name.trim()));
    // A class whose name is one character can be written as text.
    this.letters = names.filter((name) => [...name].length === 1);
  }

  // Turns a text into class indices. Throws an error if there is no label or one that is not a class.
  parse(text) {
    const { indices, wrong } = this.#read(text);
    if (wrong.length) throw new Error(`labels: ${quote(wrong[0])} is not a class; ${this.#classList()}`);
    if (!indices.length) {
      const problem = text ? "names and indices cannot be mixed in a text" : "give at least one";
      throw new Error(`labels: ${problem}; ${this.#classList()}`);
    }
    return indices;
  }

  // Turns a text into class indices, one for each character. Throws an error if one is not the name of a class.
  parseCharacters(text) {
    const { indices, wrong } = each((character) => this.byName.get(character), [...text]);
    if (!wrong.length) return indices;
    const letters = this.letters.slice(0, MAX_LISTED).join(", ") || "none";
    throw new Error(`text: ${quote(wrong[0])} is not a class; the classes of one character are: ${letters}`);
  }

  // Returns a text that names every class once, or "" if there is none.
  all() {
    const every = String([...this.names.keys()]);
    return [this.names.join(""), this.names.join(", ")].find((text) => String(this.#read(text).indices) === every) ?? "";
  }

  #read(text) {
    const items = text.split(",").map((item) => item.trim());
    const byName = (name) => this.byName.get(name);
    const byIndex = (digits) => this.#index(digits);
    for (const [read, labels] of [[byName, [text]], [byName, items], [byIndex, items], [byName, [...text]]]) {
      const { indices, wrong } = each(read, labels);
      if (!wrong.length) return { indices, wrong };
    }
    if (items.length === 1) return { indices: [], wrong: [text] };
    return { indices: [], wrong: each((item) => byName(item) ?? byIndex(item), items).wrong };
  }

  #index(text) {
    if (this.hasNumericName || !/^[0-9]+$/.test(text)) return undefined;
    return Number(text) < this.names.length ? Number(text) : undefined;
  }

  #classList() {
    const more = this.names.length - MAX_LISTED;
    const names = this.names.slice(0, MAX_LISTED).join(", ") + (more > 0 ? ` and ${more.toLocaleString("en")} more` : "");
    const indices = this.hasNumericName ? "" : ` (or their indices, 0 to ${this.names.length - 1})`;
    const two = this.names.slice(0, 2).join(",");
    const example = String(this.#read(two).indices) === "0,1" ? two : this.names[0];
    return `the classes are ${names}${indices}; for example ${JSON.stringify(example)}`;
  }
}

function each(read, labels) {
  const indices = labels.map(read);
  return { indices: indices.filter((index) => index !== undefined), wrong: labels.filter((_, i) => indices[i] === undefined) };
}

// Quotes a text as Python does.
function quote(text) {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  return (mark + text.replaceAll("\\", "\\\\").replaceAll("'", mark === "'" ? "\\'" : "'") + mark).slice(0, 60);
}

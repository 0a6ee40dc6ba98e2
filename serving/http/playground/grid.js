// The grid of images: a canvas, and over it one cell for each image, which can be selected.

import { drawOn } from "./images.js";

const MAX_SELECTED = 2;
const MAX_CELL_SCALE = 4; // an image is shown with at most this many CSS pixels for each of its pixels

// Returns the number of images in a row. If there are few classes, each class has its own columns.
export function columnsFor(classes, wide) {
  const [few, many] = wide ? [16, 32] : [10, 20];
  if (!classes || classes > many) return few;
  return classes * Math.max(1, Math.floor(few / classes));
}

export class Grid {
  selected = []; // indices of the selected images, the latest last
  images = null;
  #columns = 0;
  #cells = [];

  // onSelect is called with the index that was selected or deselected, or without one if no image is selected any more.
  constructor(frame, canvas, table, onSelect) {
    Object.assign(this, { frame, canvas, table, onSelect });
    table.addEventListener("click", (event) => {
      const cell = event.target.closest("button");
      if (cell) this.#toggle(cell);
    });
    table.addEventListener("keydown", (event) => this.#move(event));
    table.addEventListener("focusin", ({ target }) => {
      for (const cell of this.#cells) cell.tabIndex = cell === target ? 0 : -1; // the Tab key returns to this cell
    });
  }

  set busy(value) {
    this.frame.ariaBusy = String(value);
  }

  // Shows images `first` to `first + n - 1`. Cells keep the focus, and images that are still shown stay selected.
  show(images, first, columns, describe) {
    const sameLayout = this.images?.n === images.n && this.#columns === columns;
    Object.assign(this, { images, first });
    this.#columns = columns;
    drawOn(this.canvas, images, columns);
    this.frame.style.maxWidth = `${columns * images.width * MAX_CELL_SCALE}px`;
    if (!sameLayout) this.#layOut();
    this.selected = this.selected.filter((index) => index >= first && index < first + images.n);
    this.#cells.forEach((cell, i) => {
      cell.ariaLabel = describe(first + i, images.labels?.[i]);
    });
    this.#markSelected();
  }

  select(indices) {
    this.selected = indices.slice(-MAX_SELECTED);
  }

  clear() {
    this.selected = [];
    this.#markSelected();
    this.onSelect();
  }

  // Creates the rows of cells. The Tab key stops at one cell; arrow keys move between them.
  #layOut() {
    const position = this.#cells.findIndex((cell) => cell.tabIndex === 0);
    const hadFocus = this.table.contains(document.activeElement);
    this.#cells = Array.from({ length: this.images.n }, () => {
      const cell = document.createElement("button");
      cell.type = "button";
      cell.role = "gridcell";
      cell.tabIndex = -1;
      return cell;
    });
    const rows = [];
    for (let start = 0; start < this.images.n; start += this.#columns) {
      const row = document.createElement("div");
      row.role = "row";
      row.append(...this.#cells.slice(start, start + this.#columns));
      rows.push(row);
    }
    this.table.style.setProperty("--columns", this.#columns);
    this.table.replaceChildren(...rows);
    const current = this.#cells[Math.min(Math.max(position, 0), this.images.n - 1)];
    current.tabIndex = 0;
    if (hadFocus) current.focus({ preventScroll: true });
  }

  #move(event) {
    const from = this.#cells.indexOf(event.target);
    const inRow = from % this.#columns;
    const last = this.images.n - 1;
    const targets = {
      ArrowRight: from + 1,
      ArrowLeft: from - 1,
      ArrowDown: from + this.#columns,
      ArrowUp: from - this.#columns,
      Home: from - inRow,
      End: Math.min(from - inRow + this.#columns - 1, last),
    };
    if (event.key === "Escape") this.clear();
    if (from < 0 || !(event.key in targets)) return;
    event.preventDefault(); // the page would scroll
    this.#cells[targets[event.key]]?.focus();
  }

  #toggle(cell) {
    const index = this.first + this.#cells.indexOf(cell);
    const others = this.selected.filter((other) => other !== index);
    this.select(others.length < this.selected.length ? others : [...this.selected, index]);
    this.#markSelected();
    this.onSelect(index);
  }

  #markSelected() {
    this.#cells.forEach((cell, i) => {
      cell.ariaSelected = String(this.selected.includes(this.first + i));
    });
  }
}

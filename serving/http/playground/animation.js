// An animation of frames that plays forward and backward, with a button to pause it and a slider to choose a frame.

const FRAME_MILLISECONDS = 50;

export class Animation {
  #frames = null; // ImageBitmap of a row of frames
  #count = 0;
  #step = 0;
  #timer = null;

  constructor(canvas, button, slider) {
    Object.assign(this, { canvas, button, slider });
    button.addEventListener("click", () => (this.#timer ? this.pause() : this.play()));
    slider.addEventListener("input", () => {
      this.pause();
      this.#draw(Number(slider.value));
    });
    const reduced = matchMedia("(prefers-reduced-motion: reduce)");
    this.autoplay = !reduced.matches;
    reduced.addEventListener("change", () => {
      this.autoplay = !reduced.matches;
      if (reduced.matches) this.pause();
    });
  }

  // Shows a row of `count` frames. A user who paused the animation before keeps it paused.
  show(frames, count) {
    const started = this.#frames !== null;
    this.#frames?.close();
    this.#frames = frames;
    this.#count = count;
    this.canvas.width = frames.width / count;
    this.canvas.height = frames.height;
    this.slider.max = count - 1;
    this.#draw(Number(this.slider.value));
    if (!started && this.autoplay) this.play();
  }

  play() {
    this.button.textContent = "Pause";
    this.#timer ??= setInterval(() => {
      if (this.canvas.offsetParent === null) return; // it is hidden
      this.#step = (this.#step + 1) % (2 * this.#count - 2);
      this.#draw(Math.min(this.#step, 2 * this.#count - 2 - this.#step));
    }, FRAME_MILLISECONDS);
  }

  pause() {
    this.button.textContent = "Play";
    clearInterval(this.#timer);
    this.#timer = null;
  }

  #draw(frame) {
    if (!this.#timer) this.#step = frame;
    this.slider.value = frame;
    const { width, height } = this.canvas;
    this.canvas.getContext("2d").drawImage(this.#frames, frame * width, 0, width, height, 0, 0, width, height);
  }
}

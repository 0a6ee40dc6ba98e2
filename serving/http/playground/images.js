// Images as the engines return them: { pixels, n, height, width, channels, labels }. `pixels` is a Uint8Array of the
// shape (n, height, width, channels) with 1 channel (grey) or 3 (RGB); `labels` is an array of class indices or null.

// Returns the images as ImageData, in rows of `columns` images.
export function toImageData({ pixels, n, height, width, channels }, columns) {
  const data = new ImageData(columns * width, Math.ceil(n / columns) * height);
  const rgba = data.data;
  for (let alpha = 3; alpha < rgba.length; alpha += 4) rgba[alpha] = 255;
  for (let image = 0, from = 0; image < n; image++) {
    const left = (image % columns) * width;
    const top = Math.floor(image / columns) * height;
    for (let y = 0; y < height; y++) {
      let to = ((top + y) * data.width + left) * 4;
      for (let x = 0; x < width; x++, to += 4, from += channels) {
        rgba[to] = pixels[from];
        rgba[to + 1] = pixels[from + (channels === 3 ? 1 : 0)];
        rgba[to + 2] = pixels[from + (channels === 3 ? 2 : 0)];
      }
    }
  }
  return data;
}

// Returns image i alone.
export function imageAt(images, i) {
  const size = images.height * images.width * images.channels;
  return { ...images, n: 1, pixels: images.pixels.subarray(i * size, (i + 1) * size), labels: images.labels && [images.labels[i]] };
}

export function drawOn(canvas, images, columns) {
  const data = toImageData(images, columns);
  canvas.width = data.width;
  canvas.height = data.height;
  canvas.getContext("2d").putImageData(data, 0, 0);
}

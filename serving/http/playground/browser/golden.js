// Golden images: images in the card that this browser must render like the machine that exported the file.

// Largest difference of a pixel in levels, and largest share of pixels that differ, as in models/onnx_file/golden.py.
export const GOLDEN_BOUNDS = { fp32: [1, 1e-4], fp16: [2, 1e-2], int8: [8, 0.2] };

// Compares rendered pixels with those of the card. Throws an error if they differ by more than GOLDEN_BOUNDS allows.
export async function compareGolden(rendered, card) {
  const golden = await unpack(card.golden.pixels);
  if (golden.length < rendered.length) throw new Error("card: its golden images cannot be decoded (there are too few pixels)");
  let off = 0;
  let levelsOff = 0;
  rendered.forEach((value, i) => {
    const difference = Math.abs(value - golden[i]);
    if (difference) off++;
    levelsOff = Math.max(levelsOff, difference);
  });
  const [levels, share] = GOLDEN_BOUNDS[card.precision];
  if (levelsOff <= levels && off <= share * rendered.length) return;
  const number = (value) => value.toLocaleString("en");
  throw new Error(
    `golden images: ${number(off)} of ${number(rendered.length)} pixels differ, by up to ${levelsOff} levels; ` +
      `at most ${(100 * share).toFixed(2)}% of them may differ, by up to ${levels}`,
  );
}

async function unpack(base64) {
  try {
    const packed = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate")); // the format of zlib
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new Error(`card: its golden images cannot be decoded (${error.message})`);
  }
}

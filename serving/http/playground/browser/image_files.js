// Images as files: a grid as PNG, a data set as .npz.

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
const MS_DOS_DATE = (1 << 5) | 1; // 1980-01-01, so that the same images give the same bytes

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

// Returns a PNG of images in rows of `columns`; each pixel becomes a square of scale x scale pixels.
// images: as in images.js.
export async function png({ pixels, n, height, width, channels }, columns, scale) {
  const rowBytes = columns * width * scale * channels + 1; // with the filter type 0 in front of each row
  const rows = Math.ceil(n / columns) * height * scale;
  const data = new Uint8Array(rows * rowBytes);
  for (let y = 0; y < rows; y++) {
    const inImage = Math.floor(y / scale) % height;
    const firstOfRow = Math.floor(y / scale / height) * columns;
    let to = y * rowBytes + 1;
    for (let column = 0; column < columns && firstOfRow + column < n; column++) {
      const from = ((firstOfRow + column) * height + inImage) * width * channels;
      for (let x = 0; x < width * scale; x++) {
        const pixel = from + Math.floor(x / scale) * channels;
        for (let channel = 0; channel < channels; channel++) data[to++] = pixels[pixel + channel];
      }
    }
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, columns * width * scale);
  header.setUint32(4, rows);
  header.setUint8(8, 8); // bits
  header.setUint8(9, channels === 3 ? 2 : 0); // RGB or grey
  const compressed = new Blob([data]).stream().pipeThrough(new CompressionStream("deflate"));
  const chunks = [
    chunk("IHDR", new Uint8Array(header.buffer)),
    chunk("IDAT", new Uint8Array(await new Response(compressed).arrayBuffer())),
    chunk("IEND", new Uint8Array()),
  ];
  return new Blob([Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a), ...chunks], { type: "image/png" });
}

function chunk(type, data) {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(type), 4);
  bytes.set(data, 8);
  view.setUint32(data.length + 8, crc32(bytes.subarray(4, data.length + 8)));
  return bytes;
}

// Returns an .npz file with the arrays of the service: `images` uint8 (n, height, width), or (n, height, width, 3) for
// colour, and `labels` int64 (n) where there are classes.
export function npz({ pixels, n, height, width, channels, labels }) {
  const shape = channels === 1 ? [n, height, width] : [n, height, width, channels];
  const files = { "images.npy": npy("|u1", shape, pixels) };
  if (labels) files["labels.npy"] = npy("<i8", [n], new Uint8Array(BigInt64Array.from(labels, BigInt).buffer));
  return zip(files);
}

function npy(type, shape, data) {
  const dict = `{'descr': '${type}', 'fortran_order': False, 'shape': (${shape.join(", ")}${shape.length === 1 ? "," : ""}), }`;
  const header = `${dict.padEnd(Math.ceil((dict.length + 11) / 64) * 64 - 11)}\n`;
  const bytes = new Uint8Array(10 + header.length + data.length);
  bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, header.length & 255, header.length >> 8]);
  bytes.set(new TextEncoder().encode(header), 10);
  bytes.set(data, 10 + header.length);
  return bytes;
}

// Returns an uncompressed zip archive.
function zip(files) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const [name, data] of Object.entries(files)) {
    // Fields that the header in front of a file and its entry in the directory share.
    const shared = fields([[20, 2], [0, 2], [0, 2], [0, 2], [MS_DOS_DATE, 2], [crc32(data), 4], [data.length, 4], [data.length, 4], [name.length, 2], [0, 2]]);
    const text = new TextEncoder().encode(name);
    const header = [fields([[0x04034b50, 4]]), shared, text];
    directory.push(fields([[0x02014b50, 4], [20, 2]]), shared, fields([[0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]]), text);
    parts.push(...header, data);
    offset += total(header) + data.length;
  }
  const count = Object.keys(files).length;
  const end = fields([[0x06054b50, 4], [0, 2], [0, 2], [count, 2], [count, 2], [total(directory), 4], [offset, 4], [0, 2]]);
  return new Blob([...parts, ...directory, end], { type: "application/x-npz" });
}

function total(parts) {
  return parts.reduce((sum, part) => sum + part.length, 0);
}

// Returns numbers as little-endian bytes; each is given with its number of bytes.
function fields(numbers) {
  return Uint8Array.from(numbers.flatMap(([number, bytes]) => Array.from({ length: bytes }, (_, i) => number >>> (8 * i))));
}

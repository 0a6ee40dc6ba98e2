// Reads the .npz files of the service: a zip archive of uncompressed .npy files.

const END = 0x06054b50; // signature of the end of the central directory of a zip archive
const END_BYTES = 22;
const TYPES = { "|u1": Uint8Array, "<i8": BigInt64Array };

// Returns the arrays of a file by name, each as { shape, values }.
export function readNpz(buffer) {
  const view = new DataView(buffer);
  const end = buffer.byteLength - END_BYTES; // the service writes no comment after it
  if (end < 0 || view.getUint32(end, true) !== END) throw new Error("The service did not return an .npz file");
  const arrays = {};
  let entry = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left; left--) {
    const nameBytes = view.getUint16(entry + 28, true);
    const local = view.getUint32(entry + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const name = new TextDecoder().decode(new Uint8Array(buffer, entry + 46, nameBytes));
    arrays[name.replace(/\.npy$/, "")] = readNpy(buffer.slice(start, start + view.getUint32(entry + 24, true)));
    entry += 46 + nameBytes + view.getUint16(entry + 30, true) + view.getUint16(entry + 32, true);
  }
  return arrays;
}

function readNpy(buffer) {
  const headerBytes = new DataView(buffer).getUint16(8, true);
  const header = new TextDecoder().decode(new Uint8Array(buffer, 10, headerBytes));
  const [, type] = header.match(/'descr': '([^']+)'/);
  const [, shape] = header.match(/'shape': \(([^)]*)\)/);
  return { shape: shape.split(",").filter(Boolean).map(Number), values: new TYPES[type](buffer, 10 + headerBytes) };
}

// Packed arrays of payloads (the counterpart of packing.py).

const NOTHING = 65535;

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text), bytes = new Uint8Array(characters.length);
  for (let n = 0; n < bytes.length; n += 1) bytes[n] = characters.charCodeAt(n);
  return bytes;
}

// An array: its shape, and a function from a place in its row of values to the number there.
// Numbers are unpacked when they are asked for: a view shows few of those that came with it.
function unpack({ shape, f4, u2, first, decimals }) {
  if (f4 !== undefined) {
    const values = new Float32Array(bytesOf(f4).buffer);
    return { shape, at: (n) => (Number.isNaN(values[n]) ? null : values[n]) };
  }
  const bytes = bytesOf(u2), number = bytes.length / 2, unit = 10 ** Math.abs(decimals); // lower bytes, then upper ones
  return { shape, at: (n) => {
    const code = bytes[n] + 256 * bytes[number + n];
    return code === NOTHING ? null : decimals < 0 ? (code + first) * unit : (code + first) / unit;
  } };
}

// A payload with its packed arrays unpacked, at any depth.
export function unpacked(payload) {
  if (payload === null || typeof payload !== "object") return payload;
  if (Array.isArray(payload)) return payload.map(unpacked);
  if (payload.shape && (payload.f4 !== undefined || payload.u2 !== undefined)) return unpack(payload);
  return Object.fromEntries(Object.entries(payload).map(([key, each]) => [key, unpacked(each)]));
}

// The last two axes of an array as rows of numbers, null where a value is missing.
export function matrix({ shape, at }, ...place) {
  const [rows, columns] = shape.slice(-2), start = flat(shape, place) * rows * columns;
  return Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => at(start + i * columns + j)));
}

// One number of an array, null where it is missing.
export const value = ({ shape, at }, ...place) => at(flat(shape, place));

const flat = (shape, place) => place.reduce((sum, n, axis) => sum * shape[axis] + n, 0);

const tables = new WeakMap();
// The rows of a table of columns, as objects; made once.
export function rowsOf(columns) {
  const names = Object.keys(columns);
  if (!names.length) return [];
  if (!tables.has(columns)) tables.set(columns, columns[names[0]].map((_, n) => Object.fromEntries(names.map((c) => [c, columns[c][n]]))));
  return tables.get(columns);
}

export async function inflated(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

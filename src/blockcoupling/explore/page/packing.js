// Packed arrays of payloads (the counterpart of packing.py): values in one row, and their shape.

const NOTHING = 65535;

function bytesOf(text) {
  return Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
}

function unpack({ shape, f4, u2, first, decimals }) {
  if (f4 !== undefined) return { shape, values: new Float32Array(bytesOf(f4).buffer) };
  const codes = new Uint16Array(bytesOf(u2).buffer);
  const unit = 10 ** Math.abs(decimals);
  const scaled = (code) => (decimals < 0 ? (code + first) * unit : (code + first) / unit);
  return { shape, values: Float64Array.from(codes, (c) => (c === NOTHING ? NaN : scaled(c))) };
}

// A payload with its packed arrays unpacked, at any depth.
export function unpacked(payload) {
  if (payload === null || typeof payload !== "object") return payload;
  if (Array.isArray(payload)) return payload.map(unpacked);
  if (payload.shape && (payload.f4 !== undefined || payload.u2 !== undefined)) return unpack(payload);
  return Object.fromEntries(Object.entries(payload).map(([key, each]) => [key, unpacked(each)]));
}

// The last two axes of an array as rows of numbers, null where a value is missing.
export function matrix({ shape, values }, ...at) {
  const [rows, columns] = shape.slice(-2);
  const start = at.reduce((sum, n, axis) => sum * shape[axis] + n, 0) * rows * columns;
  return Array.from({ length: rows }, (_, i) =>
    Array.from(values.subarray(start + i * columns, start + (i + 1) * columns), (v) =>
      Number.isNaN(v) ? null : v));
}

// One number of an array, null where it is missing.
export function value({ shape, values }, ...at) {
  const found = values[at.reduce((sum, n, axis) => sum * shape[axis] + n, 0)];
  return Number.isNaN(found) ? null : found;
}

// The rows of a table of columns, as objects.
export function rowsOf(columns) {
  const names = Object.keys(columns);
  if (!names.length) return [];
  return columns[names[0]].map((_, n) => Object.fromEntries(names.map((c) => [c, columns[c][n]])));
}

export async function inflated(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

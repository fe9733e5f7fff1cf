// Numbers: as text, on scales, and a fitted line.

export const digits = (value, count = 4) =>
  value === null || value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(count).replace("-", "−");

export const short = (value) =>
  value === null || !Number.isFinite(value) ? "–" : String(Number(value.toPrecision(3))).replace("-", "−");

export function count(value) {
  const [size, unit] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([s]) => value >= s) ?? [1, ""];
  return `${Number((value / size).toPrecision(3))} ${unit}`.trim();
}

// The least and largest number of some rows, null where there is none.
export function extremes(rows) {
  let [low, high] = [Infinity, -Infinity];
  rows.forEach((row) => row.forEach((each) => { if (each !== null && each < low) low = each; if (each !== null && each > high) high = each; }));
  return low <= high ? [low, high] : null;
}

// One colour scale for several matrices, as the report's figures have it: around the value of
// unrelated blocks where there is one. `up`: values grow with the similarity of blocks.
export function scale(matrices, centre, colours, up = false) {
  const [low, high] = extremes(matrices.flat()) ?? [centre ?? 1, centre ?? 1];
  const least = 0.01;
  if (centre === null) return { low, high: Math.max(high, low + least), colours: colours.sequential };
  const reach = Math.max(high - centre, centre - low, least);
  return { low: centre - reach, high: centre + reach, colours: up ? colours.diverging_up : colours.diverging };
}

// Least squares of y on x, with R² and the half-width of the line's 95 % confidence band at each x.
export function fit(points, t) {
  const n = points.length;
  const mean = (axis) => points.reduce((sum, each) => sum + each[axis], 0) / n;
  const [mx, my] = [mean("x"), mean("y")];
  const sum = (f) => points.reduce((total, each) => total + f(each.x - mx, each.y - my), 0);
  const [xx, xy, yy] = [sum((x) => x * x), sum((x, y) => x * y), sum((x, y) => y * y)];
  if (n < 3 || xx === 0 || yy === 0) return null;
  const slope = xy / xx, intercept = my - slope * mx;
  const residual = Math.max(0, yy - slope * xy) / (n - 2);
  const quantile = t[Math.min(n - 2, t.length) - 1];
  const band = (x) => quantile * Math.sqrt(residual * (1 / n + (x - mx) ** 2 / xx));
  return { n, slope, intercept, r2: (xy * xy) / (xx * yy), at: (x) => intercept + slope * x, band };
}

// The two different blocks with the smallest m.
export function strongest(m) {
  let best = null;
  m.forEach((row, i) => row.forEach((value, j) => {
    if (i !== j && value !== null && (best === null || value < best.m)) best = { i: i + 1, j: j + 1, m: value };
  }));
  return best;
}

// The first of a model's checkpoints from which on m stays below that of the first one by more than
// two standard errors of the difference; null where it does not, undefined where errors are unknown.
export function onset(course) {
  const [start, ...rest] = course;
  if (start === undefined || course.some((each) => each.m === null || each.se === null)) return undefined;
  const below = (each) => each.m < start.m - 2 * Math.hypot(each.se, start.se);
  const first = rest.findIndex((_, n) => rest.slice(n).every(below));
  return first < 0 ? null : rest[first];
}

export function spearman(pairs) {
  const ranks = (values) => {
    const order = values.map((_, n) => n).sort((a, b) => values[a] - values[b]);
    const found = new Array(values.length);
    for (let a = 0; a < order.length;) {
      let b = a;
      while (b < order.length && values[order[b]] === values[order[a]]) b += 1;
      for (let n = a; n < b; n += 1) found[order[n]] = (a + b - 1) / 2;
      a = b;
    }
    return found;
  };
  const [x, y] = [ranks(pairs.map((p) => p.x)), ranks(pairs.map((p) => p.y))];
  const line = fit(x.map((each, n) => ({ x: each, y: y[n] })), [0]);
  return line === null ? null : Math.sign(line.slope) * Math.sqrt(line.r2);
}

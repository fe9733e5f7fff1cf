// Contents for plotly.js in the look of the report's figures, light or dark.

import { index } from "explore/models";

function theme() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { ink: of("--ink"), soft: of("--soft"), line: of("--line"), page: of("--card"), grey: of("--grey") };
}

export const colour = (n) => index.colours.categories[n % index.colours.categories.length];
// Colours along the sequential scale for more things than the palette has.
export function colours(number) {
  if (number <= index.colours.categories.length) return Array.from({ length: number }, (_, n) => colour(n));
  const stops = index.colours.sequential;
  return Array.from({ length: number }, (_, n) => stops[Math.round((n / (number - 1)) * 0.88 * (stops.length - 1))][1]);
}
export const symbols = ["circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "x"];

function base() {
  const { ink, page, line } = theme();
  return {
    font: { family: 'system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif', size: 12, color: ink },
    paper_bgcolor: page, plot_bgcolor: page, showlegend: false, hovermode: "closest", dragmode: "zoom",
    hoverlabel: { bgcolor: page, bordercolor: line, font: { color: ink } },
    uirevision: "same", separators: ".",
  };
}

function axis(title, more = {}) {
  const { line, soft } = theme();
  return { title: { text: title, standoff: 6 }, gridcolor: line, zeroline: false, linecolor: soft, ticks: "outside", ticklen: 4,
    tickcolor: soft, ...more };
}

// Places of panels in rows and columns, in pixels, and as shares of the figure.
function grid(number, width, height, { least, ratio, gap, margin, most = 4 }) {
  const room = width - margin.l - margin.r;
  const columns = Math.max(1, Math.min(number, most, Math.floor((room + gap.x) / (least + gap.x))));
  const rows = Math.ceil(number / columns);
  let wide = (room - gap.x * (columns - 1)) / columns;
  if (ratio === 1 && !height) wide = Math.min(wide, 460);
  if (height) wide = Math.min(wide, (height - margin.t - margin.b - gap.y * (rows - 1)) / rows / ratio);
  const tall = height && ratio !== 1 ? (height - margin.t - margin.b - gap.y * (rows - 1)) / rows : wide * ratio;
  const whole = { x: width - margin.l - margin.r, y: rows * tall + (rows - 1) * gap.y };
  const cells = Array.from({ length: number }, (_, n) => {
    const left = (n % columns) * (wide + gap.x), top = Math.floor(n / columns) * (tall + gap.y);
    return { x: [left / whole.x, (left + wide) / whole.x], y: [1 - (top + tall) / whole.y, 1 - top / whole.y],
      first: n % columns === 0, last: n + columns >= number };
  });
  return { cells, columns, rows, wide, height: whole.y + margin.t + margin.b, used: (columns * wide + (columns - 1) * gap.x) / whole.x };
}

const suffix = (n) => (n ? String(n + 1) : "");

// Lines of a title that fit a width, broken at hyphens and spaces.
function wrapped(text, width) {
  const most = Math.max(12, Math.floor(width / 6.4));
  return text.split("\n").map((line) => line.split(/(?<=[-_\s,])/).reduce((lines, part) => {
    if (lines.at(-1).length + part.trim().length > most && lines.at(-1)) lines.push("");
    lines[lines.length - 1] += part;
    return lines;
  }, [""]).join("<br>")).join("<br>");
}

// Matrices side by side on one scale. A panel: title, z (rows), labels of both axes where these are not
// numbers, what a cell says (hover: a template of plotly.js, or texts), errors of z, number of its scale.
// All are drawn on one pair of axes in pixels: axes of their own would take most of the time.
export function matrices(panels, { scale, bar, x, y, scales = null }) {
  return (width, height) => {
    const { grey, ink, soft } = theme(), narrow = width < 560;
    const bars = scales ?? [{ ...scale, title: bar }];
    const lines = Math.max(...panels.map((each) => wrapped(each.title, 210).split("<br>").length));
    const margin = { l: 54, r: narrow || bars.length > 1 ? 12 : 112, t: 22 + 15 * lines, b: narrow || bars.length > 1 ? 104 : 46 };
    const place = grid(panels.length, width, height, { least: narrow ? 240 : 190, ratio: 1, gap: { x: 46, y: 44 + 15 * lines }, margin });
    const wide = width - margin.l - margin.r, tall = place.height - margin.t - margin.b;
    const drawn = panels.map((panel, n) => {
      const { x: [left, right], y: [bottom, top], first, last } = place.cells[n], [rows, columns] = [panel.z.length, panel.z[0].length];
      return { panel, first, last, left: left * wide, top: (1 - top) * tall, right: right * wide, bottom: (1 - bottom) * tall,
        dx: ((right - left) * wide) / columns, dy: ((top - bottom) * tall) / rows, rows, columns };
    });
    const same = drawn.every((each) => each.rows === drawn[0].rows && String(each.panel.labels) === String(panels[0].labels));
    const xs = drawn.map((each) => ticks(each.columns, each.left, each.dx, each.panel.labels)), ys = drawn.map((each) => ticks(each.rows, each.top, each.dy, each.panel.labels));
    const labelled = panels[0].labels !== undefined;
    const ruler = (found, shown) => ({ showgrid: false, showline: false, automargin: labelled, tickmode: "array", tickvals: shown.flatMap((n) => found[n].map(([at]) => at)), ticktext: shown.flatMap((n) => found[n].map(([, text]) => text)) });
    const some = (test) => (same ? drawn.flatMap((each, n) => (test(each) ? [n] : [])) : []);
    const layout = { ...base(), width, height: place.height, margin,
      xaxis: axis(x, { ...ruler(xs, some((each) => each.last)), domain: [0, place.used], range: [0, place.used * wide], tickangle: labelled ? -90 : 0 }),
      yaxis: axis(y, { ...ruler(ys, some((each) => each.first)), range: [tall, 0] }),
      shapes: [{ type: "path", layer: "below", line: { width: 0 }, fillcolor: grey, path: drawn.map(({ left, top, right, bottom }) => `M${left},${top}H${right}V${bottom}H${left}Z`).join("") },
        ...drawn.filter((each) => each.panel.cell).map(({ panel: { cell: [i, j] }, left, top, dx, dy }) => ({ type: "rect", x0: left + (j - 1) * dx, x1: left + j * dx, y0: top + (i - 1) * dy, y1: top + i * dy, line: { color: ink, width: 2 } }))] };
    const data = drawn.map(({ panel, left, top, dx, dy, rows, columns }) => ({ type: "heatmap", z: panel.z, x0: left + dx / 2, dx, y0: top + dy / 2, dy, coloraxis: `coloraxis${suffix(panel.scale ?? 0)}`,
      text: panel.texts ?? places(rows, columns), customdata: panel.errors, hovertemplate: `${panel.hover ?? "%{text}"}${panel.errors ? " ± %{customdata:.4f}" : ""}<extra></extra>`, hoverongaps: false, name: panel.title }));
    const words = (list, textposition) => ({ type: "scatter", mode: "text", x: list.map((each) => each[0]), y: list.map((each) => each[1]), text: list.map((each) => each[2]), textposition, cliponaxis: false, hoverinfo: "skip", showlegend: false });
    data.push(words(drawn.map((each) => [(each.left + each.right) / 2, each.top, wrapped(each.panel.title, place.wide)]), "top center"));
    if (!same) data.push(words(drawn.flatMap(({ bottom }, n) => xs[n].map(([at, text]) => [at, bottom, text])), "bottom center"), words(drawn.flatMap(({ left }, n) => ys[n].map(([at, text]) => [left, at, text])), "middle left"));
    bars.forEach((each, n) => {
      const flat = narrow || bars.length > 1, share = place.used / bars.length;
      const colorbar = flat
        ? { orientation: "h", x: n * share, xanchor: "left", xpad: 0, y: 0, yref: "paper", yanchor: "top", ypad: 58, len: share * (bars.length > 1 ? 0.9 : 1), thickness: 12 }
        : { x: place.used, xanchor: "left", xpad: 16, len: 1, lenmode: "fraction", thickness: 14 };
      layout[`coloraxis${suffix(n)}`] = { cmin: each.low, cmax: each.high, colorscale: each.colours,
        colorbar: { ...colorbar, title: { text: each.title, side: flat ? "top" : "right", font: { size: 12 } }, outlinewidth: 0, tickcolor: soft, nticks: 5 } };
    });
    return { data, layout };
  };
}

// Row and column of a point of a matrix, from 1.
export const cellOf = ({ pointNumber: [i, j] }) => [i + 1, j + 1];

// Places and texts of the ticks along one side of a matrix: every label, or some numbers.
function ticks(size, start, step, labels) {
  const every = labels ? 1 : size > 60 ? 20 : size > 24 ? 8 : size > 12 ? 4 : size > 6 ? 2 : 1;
  return Array.from({ length: Math.ceil(size / every) }, (_, n) => [start + (n * every + 0.5) * step, labels?.[n] ?? String(n * every + 1)]);
}

const known = new Map();
// "(row, column)" of every cell, made once for each size.
function places(rows, columns) {
  const size = `${rows} ${columns}`;
  if (!known.has(size)) known.set(size, Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => `${i + 1}, ${j + 1}`)));
  return known.get(size);
}

// Panels of lines or points. A panel: title, x, y, traces; axes may have ticks of their own.
export function panels(list, { least = 300, ratio = 0.7, legend = false, most = 3 } = {}) {
  return (width, height) => {
    const entries = legend ? new Set(list.flatMap((each) => each.traces).filter((each) => each.showlegend !== false && each.name).map((each) => each.name)) : new Set();
    const longest = Math.max(0, ...[...entries].map((each) => each.length * 6.5 + 60));
    const rows = entries.size ? Math.ceil(entries.size / Math.max(1, Math.floor(width / longest))) : 0;
    const margin = { l: 70, r: 16, t: 30, b: 52 + 20 * rows };
    const place = grid(list.length, width, height, { least, ratio, gap: { x: 84, y: 92 }, margin, most: Math.min(most, Math.max(1, list.length)) });
    const layout = { ...base(), width, height: place.height, margin, annotations: [], shapes: [], showlegend: legend && entries.size > 0,
      legend: { orientation: "h", x: 0, y: 0, yref: "paper", yanchor: "top", xanchor: "left", font: { size: 12 }, itemsizing: "constant" } };
    layout.legend.y = -48 / Math.max(1, place.height - margin.t - margin.b);
    const data = list.flatMap((panel, n) => {
      const cell = place.cells[n];
      layout[`xaxis${suffix(n)}`] = axis(panel.x, { domain: cell.x, anchor: `y${suffix(n)}`, ...panel.xaxis });
      layout[`yaxis${suffix(n)}`] = axis(panel.y, { domain: cell.y, anchor: `x${suffix(n)}`, ...panel.yaxis });
      if (panel.title) layout.annotations.push({ text: panel.title, xref: "paper", yref: "paper", x: cell.x[0], y: cell.y[1], yshift: 6, xanchor: "left", yanchor: "bottom", showarrow: false, font: { size: 12 } });
      (panel.marks ?? []).forEach((mark) => {
        const line = { color: theme().soft, width: 1, dash: "dot" };
        layout.shapes.push(mark.y === undefined
          ? { type: "line", xref: `x${suffix(n)}`, yref: `y${suffix(n)} domain`, x0: mark.x, x1: mark.x, y0: 0, y1: 1, line }
          : { type: "line", yref: `y${suffix(n)}`, xref: `x${suffix(n)} domain`, y0: mark.y, y1: mark.y, x0: 0, x1: 1, line });
        layout.annotations.push({ text: mark.text, font: { size: 11, color: theme().soft }, showarrow: false, bgcolor: theme().page,
          ...(mark.y === undefined ? { xref: `x${suffix(n)}`, yref: `y${suffix(n)} domain`, x: mark.x, y: 1, yanchor: "top", xanchor: panel.xaxis?.range && mark.x > 0.8 * panel.xaxis.range[1] ? "right" : "left" }
            : { yref: `y${suffix(n)}`, xref: `x${suffix(n)} domain`, y: mark.y, x: 1, xanchor: "right", yanchor: "bottom" }) });
      });
      return panel.traces.map((trace) => ({ type: "scatter", hovertemplate: "%{text}<extra></extra>", ...trace, xaxis: `x${suffix(n)}`, yaxis: `y${suffix(n)}` }));
    });
    return { data, layout };
  };
}

// Training steps on a logarithmic axis that has 0: log₁₀(1 + step).
export const placed = (step) => Math.log10(1 + step);
export function stepAxis(steps) {
  const largest = Math.max(1, ...steps), marks = [0, 1];
  while (marks.at(-1) * 10 <= largest) marks.push(marks.at(-1) * 10);
  const every = Math.ceil(marks.length / 7);
  const shown = marks.filter((_, n) => n === 0 || (n - 1) % every === 0);
  return { tickmode: "array", tickvals: shown.map(placed), ticktext: shown.map((each) => each.toLocaleString("en")), range: [-0.06 * placed(largest), 1.05 * placed(largest)] };
}

// A logarithmic axis with plain numbers as ticks: 1, 2 and 5, or powers of ten alone.
export function logAxis(values) {
  const known = values.filter((each) => each > 0).map(Math.log10), [low, high] = [Math.min(...known), Math.max(...known)];
  const tickvals = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += 1) tickvals.push(...(high - low < 2.5 ? [1, 2, 5] : [1]).map((each) => Number(`${each}e${power}`)));
  return { type: "log", tickmode: "array", tickvals, ticktext: tickvals.map(String), minor: {} };
}

// Keys that move a cell through matrices; Enter opens it. Returns what a card's `keys` is.
export function walking(panels, { tell, open }) {
  let at = { n: 0, i: 1, j: 1 };
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  return (event) => {
    if (moves[event.key]) {
      const [di, dj] = moves[event.key], z = panels[at.n].z;
      let { n, i, j } = { n: at.n, i: at.i + di, j: at.j + dj };
      if (j > z[0].length && n + 1 < panels.length) [n, j] = [n + 1, 1];
      if (j < 1 && n > 0) [n, j] = [n - 1, panels[n - 1].z[0].length];
      at = { n, i: Math.min(Math.max(i, 1), panels[n].z.length), j: Math.min(Math.max(j, 1), panels[n].z[0].length) };
      panels.forEach((each, m) => { each.cell = m === at.n ? [at.i, at.j] : each.marked ?? null; });
      tell(panels[at.n], at.i, at.j);
    } else if (event.key === "Enter" && open) open(panels[at.n], at.i, at.j);
    else return;
    event.preventDefault();
  };
}

// A figure in its card: full screen, image and table files, a readout, the values as a table.

import { arrange, el } from "explore/dom";
import { plotly } from "explore/transport";

const TABLE = 500;
const kept = new Map();
let printing = false;
addEventListener("beforeprint", () => { printing = true; redraw(); });
addEventListener("afterprint", () => { printing = false; });

// A card of that name, made once. `draw(width, height)` returns { data, layout } for plotly.js.
export function card(name) {
  if (!kept.has(name)) kept.set(name, build(name));
  return kept.get(name);
}

export function show(container, nodes) {
  arrange(container, nodes.filter(Boolean));
  for (const each of kept.values()) each.watch(container.contains(each.node));
}

export const redraw = () => Promise.all([...kept.values()].filter((each) => each.node.isConnected).map((each) => each.draw()));

// A figure takes longest when it is new: one of them a frame, so that the page answers in between.
let taken = false;
async function turn() {
  while (taken) await new Promise(requestAnimationFrame);
  taken = true;
  requestAnimationFrame(() => setTimeout(() => { taken = false; }, 0));
}

function build(name) {
  const title = el("h2"), caption = el("figcaption"), readout = el("output", { class: "readout", "aria-live": "polite" });
  const plot = el("div", { class: "plot", tabindex: 0, id: `plot-${name}` });
  const table = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Values as a table" });
  const details = el("details", { ontoggle: () => details.open && fill() }, el("summary", {}, "Values as a table"), table);
  const tool = (text, label, action) => el("button", { type: "button", title: label, "aria-label": label, onclick: action }, text);
  const full = tool("Full screen", "Show this figure on the full screen", () => (document.fullscreenElement ? document.exitFullscreen() : node.requestFullscreen()));
  const tools = el("div", { class: "tools", role: "toolbar", "aria-label": "Save" },
    full, tool("PNG", "Save as PNG", () => image("png")), tool("SVG", "Save as SVG", () => image("svg")),
    tool("CSV", "Save the values as CSV", () => save(`${self.file}.csv`, `data:text/csv;charset=utf-8,${encodeURIComponent(csv(self.table()))}`)),
    tool("Copy", "Copy the values", copy));
  const node = el("figure", { class: "card", id: `card-${name}` }, el("div", { class: "head" }, title, tools), plot, readout, caption, details);
  const self = { node, plot, file: name, table: null, content: null, draw, watch, readout: (text) => { readout.value = text; }, set, list };
  let drawn = 0, waits = false;

  // A card of tables in place of a figure: it has no image to save.
  function list({ heading, text, table: values, content, file }) {
    title.textContent = heading;
    caption.replaceChildren(text);
    Object.assign(self, { table: values, content: null, file });
    for (const each of tools.children) each.hidden = ["PNG", "SVG"].includes(each.textContent);
    plot.classList.add("list");
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", heading);
    plot.replaceChildren(...content);
    if (details.open) fill();
  }

  function set({ heading, text, alternative, role = "img", table: values, content, file, click, hover, keys, note }) {
    title.textContent = heading;
    caption.replaceChildren(text ?? "");
    Object.assign(self, { table: values, content, file: file ?? name, click, hover, keys });
    plot.setAttribute("role", role);
    plot.setAttribute("aria-label", alternative);
    readout.value = note ?? "";
    if (details.open) fill();
    return draw();
  }

  async function draw() {
    if (!self.content || !node.isConnected) return;
    const Plotly = await plotly();
    waits = !near();
    if (waits) return;
    if (!drawn) await turn();
    if (!node.isConnected) return;
    const whole = document.fullscreenElement === node;
    const { data, layout } = self.content(plot.clientWidth, whole ? plot.clientHeight : null);
    await Plotly.react(plot, data, layout, { displayModeBar: false, responsive: false, doubleClick: "reset" });
    drawn = plot.clientWidth;
    if (!plot.dataset.listens) {
      plot.dataset.listens = "yes";
      plot.on("plotly_click", ({ points }) => self.click?.(points[0]));
      plot.on("plotly_hover", ({ points }) => { const text = self.hover?.(points[0]); if (text) readout.value = text; });
      plot.addEventListener("keydown", (event) => self.keys?.(event));
    }
  }

  // What is further away than half a screen is drawn when it comes nearer.
  function near() {
    const { top, bottom } = plot.getBoundingClientRect();
    return printing || (top < 1.5 * innerHeight && bottom > -0.5 * innerHeight);
  }

  const observers = [new ResizeObserver(() => { if (plot.clientWidth && plot.clientWidth !== drawn) draw(); }),
    new IntersectionObserver(([entry]) => { if (waits && entry.isIntersecting) draw(); }, { rootMargin: "50% 0px" })];
  function watch(visible) {
    observers.forEach((each) => (visible ? each.observe(plot) : each.disconnect()));
  }
  node.addEventListener("fullscreenchange", () => { full.setAttribute("aria-pressed", String(document.fullscreenElement === node)); draw(); });

  function fill() {
    const { columns, rows } = self.table();
    const more = rows.length > TABLE ? el("p", {}, `The first ${TABLE} of ${rows.length} rows; the CSV file has all.`) : "";
    table.replaceChildren(more, el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((each) => el("th", { scope: "col" }, each)))),
      el("tbody", {}, ...rows.slice(0, TABLE).map((row) => el("tr", {}, ...row.map((each) => el("td", {}, cell(each))))))));
  }

  async function image(format) {
    const Plotly = await plotly();
    const url = await Plotly.toImage(plot, { format, scale: format === "png" ? 2 : 1, width: plot.clientWidth, height: plot.clientHeight });
    save(`${self.file}.${format}`, url);
  }

  async function copy() {
    const values = self.table(), text = csv(values, "\t");
    try {
      await navigator.clipboard.writeText(text);
      readout.value = `Copied ${values.rows.length} rows.`;
    } catch {
      readout.value = "The browser does not allow copying here: save the CSV file.";
    }
  }
  return self;
}

const cell = (value) => (value === null || value === undefined ? "" : String(value));
const quoted = (value, by) => (/["\n\r]/.test(value) || value.includes(by) ? `"${value.replaceAll('"', '""')}"` : value);
const csv = ({ columns, rows }, by = ",") => [columns, ...rows].map((row) => row.map((each) => quoted(cell(each), by)).join(by)).join("\n");

function save(file, url) {
  const link = el("a", { href: url, download: file.replaceAll(/[^\w.-]+/g, "-") });
  document.body.append(link);
  link.click();
  link.remove();
}

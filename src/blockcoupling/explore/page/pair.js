// View: two blocks. m over training and over prompts, and what m is calculated from at one prompt.

import { card, show } from "explore/cards";
import { el, fields } from "explore/dom";
import * as draw from "explore/figures";
import { courseOf, keyOf } from "explore/matrices";
import { centre, chosen, datasetField, index, kinds, modelField, named, stepOf, steps, words } from "explore/models";
import { digits, onset, scale, short, strongest } from "explore/numbers";
import { matrix, value } from "explore/packing";
import * as state from "explore/state";
import { available, payload } from "explore/transport";

const KIND = "miscoupling", LISTED = 100;

export async function pair(form, figures) {
  const [model] = chosen([KIND]);
  if (!model) throw new Error("This catalog has no mis-coupling matrices, and so no pairs of blocks: `blockcoupling reduce` makes them.");
  const dataset = datasetField(KIND, [model]), over = steps([model], KIND, dataset.value), checkpoint = over.at(model);
  const means = await payload(keyOf("matrices", model, checkpoint, dataset.value));
  const kind = kinds([means], model.catalog), [v, k] = kind.at(means);
  const numbers = Array.from({ length: means.blocks }, (_, n) => String(n + 1));
  const best = strongest(matrix(means.m, v, k)) ?? { i: 1, j: 1 };
  const [i, j] = ["i", "j"].map((name) => Number(numbers.includes(state.one(name)) ? state.one(name) : best[name]));
  const block = (id, label, at) => ({ kind: "select", id, label, value: at, options: numbers.map((each) => [each, each]),
    change: (chosenBlock) => state.change({ i, j, [id]: chosenBlock, row: null }) });
  const rest = keyOf("x", model, checkpoint, dataset.value).slice(2);
  const stored = model.has.svd?.[checkpoint.checkpoint]?.includes(dataset.value);
  const key = `pair/${rest}/${i}/${j}`;
  const own = stored && available(key) ? await payload(key) : null;
  const row = own ? Math.min(Number(state.one("row", 0)) || 0, own.rows.prompt.length - 1) : 0;
  fields(form, [modelField([KIND], [model]), dataset, over.field, block("i", "Block i (its Jacobian)", i), block("j", "Block j (its singular vectors)", j), ...kind.fields,
    own ? { kind: "select", id: "row", label: "Prompt for A, S and overlaps", value: row, options: own.rows.prompt.map((each, n) => [n, rowName(own.rows, n)]), change: (n) => state.change({ row: n }) } : null]);

  const who = `${named(model)}, ${checkpoint.checkpoint}`, m = value(means.m, v, k, i - 1, j - 1), se = value(means.se, v, k, i - 1, j - 1);
  const course = await courseOf(model, dataset.value, kind, i, j);
  const began = onset(course);
  const head = el("div", { class: "answer" },
    el("p", {}, `${who}: `, el("b", {}, `m(${i}, ${j}) = ${digits(m)}${se === null ? "" : ` ± ${digits(se)}`}`), ` (${words(kind.variant)}, K = ${kind.k}, ${dataset.value}, ${means.prompts} prompts).`),
    el("p", { id: "onset" }, beginning(course, began, i, j)));
  const training = course.filter((each) => each.checkpoint.step !== null && each.m !== null).length > 1 ? card("pair-training") : null;
  const productKey = `products/${rest}/${i}/${j}/${row}`;
  const products = own && available(productKey) ? await payload(productKey) : null;
  const [over1, over2, values, overlaps, plane, says] = ["prompts", "a", "s", "overlaps", "eigenvalues", "readout"].map((name) => card(`pair-${name}`));
  const part = index.variants[kind.variant]?.part ?? null, compared = part ? products?.parts?.[part] : products;
  const names = products ? Object.keys(products.overlaps) : [];
  const texts = own ? await payload(`prompts/${model.catalog}/${dataset.value}`).catch(() => ({ texts: {} })) : null;
  const missing = !stored ? `The catalog has no singular vectors of ${who} on ${dataset.value}: only means over prompts are shown.`
    : !own ? `This file has the prompts of other pairs of blocks only: open the catalog with \`blockcoupling explore\` for those of blocks ${i} and ${j} at ${checkpoint.checkpoint}.`
      : !products ? "This file does not contain A, singular values and overlaps of this prompt: open the catalog with `blockcoupling explore`." : null;
  show(figures, [head, training?.node, missing ? el("p", { class: "note" }, missing) : null, own ? over1.node : null, own ? list(own, texts, row, [v, k]) : null,
    compared ? over2.node : null, compared ? values.node : null, products?.readout ? says.node : null,
    products?.eigenvalues ? plane.node : null, names.length ? overlaps.node : null]);

  const where = { file: `pair-${i}-${j}-${model.model}-${checkpoint.checkpoint}` };
  const chance = centre(kind.variant), work = [];
  if (training) work.push(trainingCard(training, { ...where, model, course, began, i, j, kind, chance, dataset: dataset.value, checkpoint }));
  if (own) work.push(promptCard(over1, { ...where, own, texts, row, i, j, kind, chance }));
  if (products) {
    const at = { ...where, i, j, prompt: rowName(own.rows, row), of: part ? `, ${words(part)}` : "" };
    if (compared) work.push(productCard(over2, { ...at, products: compared, k: kind.k }), valueCard(values, { ...at, products: compared, cosine: part ? null : products.cosine }));
    if (products.readout) work.push(readoutCard(says, { ...at, products, k: kind.k }));
    if (products.eigenvalues) work.push(eigenvalueCard(plane, { ...at, products }));
    if (names.length) work.push(overlapCard(overlaps, { ...where, products, names, i, j, k: kind.k, prompt: rowName(own.rows, row) }));
  }
  await Promise.all(work);
}

const rowName = (rows, n) => `${rows.prompt[n]}, token ${rows.token_in[n] < 0 ? "mean" : rows.token_in[n]}${rows.token_out[n] === rows.token_in[n] ? "" : ` → ${rows.token_out[n]}`}`;

function beginning(course, began, i, j) {
  if (course.length < 2) return "Only one checkpoint of this model was measured: when the coupling began is unknown.";
  if (began === undefined) return "When the coupling began is not known: standard errors over prompts are missing.";
  const first = course[0].checkpoint.checkpoint;
  if (began === null) return `Blocks ${i} and ${j} are not more coupled at the last checkpoint than at ${first}.`;
  return `The coupling of blocks ${i} and ${j} began by ${began.checkpoint.checkpoint}: from there on, m is below its value at ${first} by more than two standard errors.`;
}

function trainingCard(figure, { course, began, i, j, kind, chance, model, dataset, file, checkpoint }) {
  const shown = course.filter((each) => each.m !== null && each.checkpoint.step !== null);
  const tell = (each) => `${each.checkpoint.checkpoint}: m(${i}, ${j}) = ${digits(each.m)}${each.se === null ? "" : ` ± ${digits(each.se)}`}`;
  const marks = [...(chance === null ? [] : [{ y: chance, text: "unrelated blocks" }]), ...(began ? [{ x: draw.placed(began.checkpoint.step), text: ` began by ${began.checkpoint.checkpoint}` }] : [])];
  const unit = /^epoch/.test(course[0].checkpoint.checkpoint) ? "epoch" : "training step";
  return figure.set({
    heading: `m(${i}, ${j}) over training`, file: `${file}-training`,
    text: `Means over the prompts of ${dataset}; bars: one standard error. The axis is logarithmic, with 0. Click a point for its checkpoint.`,
    alternative: `m(${i}, ${j}) of ${model.model} over training: ${shown.map(tell).join("; ")}.`,
    table: () => ({ columns: ["model", "checkpoint", "step", "dataset", "variant", "K", "i", "j", "m", "se"], rows: course.map((each) => [model.model, each.checkpoint.checkpoint, each.checkpoint.step, dataset, kind.variant, kind.k, i, j, each.m, each.se]) }),
    content: draw.panels([{ x: unit, y: `m(${i}, ${j})`, xaxis: draw.stepAxis(shown.map((each) => each.checkpoint.step)), marks,
      traces: [{ x: shown.map((each) => draw.placed(each.checkpoint.step)), y: shown.map((each) => each.m), text: shown.map(tell), mode: "lines+markers",
        error_y: { type: "data", array: shown.map((each) => each.se ?? 0), thickness: 1, width: 3 }, line: { color: draw.colour(0) },
        marker: { size: shown.map((each) => (each.checkpoint === checkpoint ? 12 : 8)), color: draw.colour(0), line: { width: 1, color: "white" } } }] }], { ratio: 0.42, most: 1 }),
    hover: (point) => point.text,
    click: (point) => state.change({ step: stepOf(shown[point.pointIndex].checkpoint) }, { keep: true }),
  });
}

function promptCard(figure, { own, texts, row, i, j, kind, chance, file }) {
  const [v, k] = kind.at(own), names = own.rows.prompt.map((_, n) => rowName(own.rows, n));
  const m = names.map((_, n) => pick(own, n, v, k));
  const order = m.map((_, n) => n).sort((a, b) => (m[a] ?? Infinity) - (m[b] ?? Infinity));
  const tell = (n) => `${names[n]}: m(${i}, ${j}) = ${digits(m[n])}`;
  const wrap = (text) => (text ?? "").slice(0, 160).replaceAll("<", "‹").replace(/(.{1,60})(\s|$)/gs, "$1<br>");
  return figure.set({
    heading: `m(${i}, ${j}) over prompts`, file: `${file}-prompts`,
    text: `${own.prompts > new Set(own.rows.prompt).size ? `${new Set(own.rows.prompt).size} of the ${own.prompts} prompts` : "Every prompt"}, the most coupled first. Click a point for A at that prompt.`,
    alternative: `m(${i}, ${j}) at ${names.length} prompts, from ${digits(Math.min(...m.filter((each) => each !== null)))} to ${digits(Math.max(...m))}.`,
    table: () => ({ columns: ["prompt", "token_in", "token_out", "variant", "K", "i", "j", "m", "text"], rows: order.map((n) => [own.rows.prompt[n], own.rows.token_in[n], own.rows.token_out[n], kind.variant, kind.k, i, j, m[n], texts.texts[own.rows.prompt[n]]]) }),
    content: draw.panels([{ x: "prompts, in order of m", y: `m(${i}, ${j})`, xaxis: { showticklabels: false, range: [-0.7, order.length - 0.3] }, marks: chance === null ? [] : [{ y: chance, text: "unrelated blocks" }],
      traces: [{ x: order.map((_, n) => n), y: order.map((n) => m[n]), mode: "markers", type: "scatter", text: order.map((n) => `${tell(n)}<br>${wrap(texts.texts[own.rows.prompt[n]])}`),
        marker: { opacity: 1, line: { width: 0 }, size: order.map((n) => (n === row ? 13 : order.length > 300 ? 5 : 9)), color: order.map((n) => draw.colour(n === row ? 1 : 0)) } }] }], { ratio: 0.34, most: 1 }),
    hover: (point) => tell(order[point.pointIndex]),
    click: (point) => state.change({ row: order[point.pointIndex] }, { keep: true }),
  });
}

const pick = (own, n, v, k) => (v < 0 || k < 0 ? null : value(own.m, n, v, k));

function list(own, texts, row, [v, k]) {
  const entries = own.rows.prompt.map((prompt, n) => ({ prompt, n, m: pick(own, n, v, k) })).sort((a, b) => (a.m ?? Infinity) - (b.m ?? Infinity));
  const button = ({ n, prompt }) => el("button", { type: "button", class: "open", "aria-pressed": String(n === row), onclick: () => state.change({ row: n }, { keep: true }) }, prompt);
  const image = (prompt) => (texts.images?.[prompt] ? el("img", { src: `data:image/png;base64,${texts.images[prompt]}`, alt: `image of class ${texts.texts[prompt]}` }) : null);
  const rows = entries.slice(0, LISTED).map((each) => el("tr", {}, el("td", { class: "n" }, digits(each.m)), el("td", {}, button(each)), el("td", {}, image(each.prompt), ` ${texts.texts[each.prompt] ?? "text not in the catalog"}`)));
  const more = entries.length > LISTED ? el("p", {}, `The ${LISTED} most coupled of ${entries.length}; the CSV file above has all.`) : null;
  return el("details", { class: "card", open: true }, el("summary", {}, "The prompts"), more,
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...["m", "prompt", "text"].map((each) => el("th", { scope: "col" }, each)))), el("tbody", {}, ...rows))));
}

const cells = (z, name) => z.flatMap((line, a) => line.map((each, b) => [name, a + 1, b + 1, each]));
const CELL = "row, column %{text}: %{z:.4f}";

function corner(array, k) { return matrix(array).slice(0, k).map((line) => line.slice(0, k)); }

function productCard(figure, { products, i, j, k, prompt, of, file }) {
  const z = corner(products.A, k), s = Array.from({ length: k }, (_, n) => value(products.S, 0, n));
  const ideal = z.map((line, a) => line.map((_, b) => (a === b ? s[a] : 0)));
  const tell = (a, b, each) => `row ${a}, column ${b}: ${digits(each)}`;
  const panels = [{ title: `A = U${sub(j)}ᵀ J${sub(i)} V${sub(j)}`, z, hover: CELL }, { title: `S${sub(i)}: A if fully coupled`, z: ideal, hover: CELL }];
  return figure.set({
    heading: `A of blocks ${i} and ${j}${of}`, file: `${file}-A`,
    text: `The Jacobian of block ${i} in the top ${k} singular vectors of block ${j}, at ${prompt}. Next to it, diag(S) of block ${i}, which A equals if the two are fully coupled.`,
    role: "application", alternative: `A of blocks ${i} and ${j}, ${k} × ${k}; its diagonal: ${z.map((line, n) => short(line[n])).join(", ")}; singular values of block ${i}: ${s.map(short).join(", ")}. Arrow keys move between cells.`,
    table: () => ({ columns: ["matrix", "row", "column", "value"], rows: [...cells(z, "A"), ...cells(ideal, "S")] }),
    content: draw.matrices(panels, { scale: scale([z, ideal], 0, index.colours, true), bar: "entry of A<br>white: 0", x: "singular vector", y: "singular vector" }),
    hover: (point) => `${panels[point.curveNumber].title}, ${tell(...draw.cellOf(point), point.z)}`,
    keys: draw.walking(panels, { tell: (panel, a, b) => { figure.readout(`${panel.title}, ${tell(a, b, panel.z[a - 1][b - 1])}`); figure.draw(); } }),
  });
}

function valueCard(figure, { products, cosine, i, j, prompt, of, file }) {
  const [, k] = products.S.shape, n = Array.from({ length: k }, (_, each) => each + 1);
  const lines = [[i, 0], ...(i === j ? [] : [[j, 1]])].map(([block, at], order) => {
    const s = n.map((each) => value(products.S, at, each - 1)), c = n.map((each) => (cosine ? value(cosine, at, each - 1) : null));
    const turned = (index) => (c[index] === null ? "" : `, cos(u${sub(index + 1)}, v${sub(index + 1)}) = ${digits(c[index], 3)}`);
    return { name: `block ${block}`, x: n, y: s, c, text: n.map((each, index) => `block ${block}: s${sub(each)} = ${short(s[index])}${turned(index)}`), mode: "lines+markers", line: { color: draw.colour(order) }, marker: { symbol: draw.symbols[order], size: 7 } };
  });
  return figure.set({
    heading: `Singular values of blocks ${i} and ${j}${of}`, file: `${file}-S`,
    text: `Of the Jacobians at ${prompt}, the ${k} largest.${cosine ? " With each, the cosine of its left and right singular vector: 1 where a direction is stretched, −1 where it is reversed, 0 where it is moved into another." : ""}`,
    alternative: lines.map((each) => `${each.name}: ${each.y.map(short).join(", ")}`).join("; "),
    table: () => ({ columns: ["block", "index", "singular value", "cos(u, v)"], rows: lines.flatMap((each) => each.x.map((x, at) => [each.name, x, each.y[at], each.c[at]])) }),
    content: draw.panels([{ x: "index", y: "singular value", yaxis: draw.logAxis(lines.flatMap((each) => each.y)), xaxis: { dtick: k > 12 ? Math.ceil(k / 60) * 5 : 1 }, traces: lines }], { ratio: 0.38, legend: true, most: 1 }),
    hover: (point) => point.text,
  });
}

const VECTORS = [["U", 0, "what it writes"], ["V", 1, "what it reads"]], SIGNS = [["+", 0], ["−", 1]];

function readoutCard(figure, { products, i, j, k, prompt, file }) {
  const count = Math.min(k, products.readout[0][0][0].length), a = corner(products.A, k);
  const both = [[j, 1], ...(i === j ? [] : [[i, 0]])];
  const said = (at, vector, sign, n) => products.readout[at][vector][sign][n].map(visible);
  const rows = both.flatMap(([block, at]) => Array.from({ length: count }, (_, n) => VECTORS.flatMap(([name, vector]) => SIGNS.flatMap(([mark, sign]) =>
    products.readout[at][vector][sign][n].map((text, rank) => [block, name, mark, n + 1, rank + 1, text, value(products.logits, at, vector, sign, n, rank)])))).flat());
  const tables = both.map(([block, at]) => el("section", {}, el("h3", {}, `Block ${block}`), el("div", { class: "scroll" }, el("table", { class: "says" },
    el("thead", {}, el("tr", {}, ...["k", ...(block === j ? ["A (k, k)"] : []), `s of block ${block}`, ...VECTORS.flatMap(([name, , what]) => SIGNS.map(([mark]) => `${mark}${name}, ${what}`))].map((each) => el("th", { scope: "col" }, each)))),
    el("tbody", {}, ...Array.from({ length: count }, (_, n) => el("tr", {}, el("td", { class: "n" }, String(n + 1)), block === j ? el("td", { class: "n" }, short(a[n][n])) : null, el("td", { class: "n" }, short(value(products.S, at, n))),
      ...VECTORS.flatMap(([, vector]) => SIGNS.map(([, sign]) => el("td", {}, ...said(at, vector, sign, n).flatMap((text) => [el("code", {}, text), " "]))))))))) ));
  return figure.list({
    heading: `What the directions of blocks ${j} and ${i} say`, file: `${file}-readout`,
    text: `The tokens with the largest logits if a singular vector of the block takes the place of the last hidden state, by the model's own final norm and unembedding; with either sign, at ${prompt}. U is what a block writes, V what it reads. If A (k, k) is close to s of block ${i}, block ${i} uses this direction as block ${j} does.`,
    table: () => ({ columns: ["block", "vector", "sign", "k", "rank", "token", "logit"], rows }), content: tables,
  });
}

// White space as signs.
const visible = (text) => (text === "" ? "∅" : text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥"));

function eigenvalueCard(figure, { products, i, j, prompt, file }) {
  const [, , d] = products.eigenvalues.shape, n = Array.from({ length: d }, (_, each) => each);
  const traces = [[i, 0], ...(i === j ? [] : [[j, 1]])].map(([block, at], order) => {
    const [x, y] = [0, 1].map((part) => n.map((each) => value(products.eigenvalues, at, part, each)));
    return { name: `block ${block}, departure from normality ${digits(products.departure[at], 3)}`, block, x, y, mode: "markers", text: n.map((each) => `block ${block}: λ = ${short(x[each])} ${y[each] < 0 ? "−" : "+"} ${short(Math.abs(y[each]))}i, |λ| = ${short(Math.hypot(x[each], y[each]))}`),
      marker: { symbol: draw.symbols[order], size: d > 200 ? 5 : 7, color: draw.colour(order), opacity: 0.8 } };
  });
  return figure.set({
    heading: `Eigenvalues of blocks ${i} and ${j}`, file: `${file}-eigenvalues`,
    text: `Of the Jacobians at ${prompt}, all ${d}. Departure from normality: 0 if eigenvectors are orthogonal (then |λ| are the singular values), towards 1 if most of J moves directions into others.`,
    alternative: traces.map((each) => `${each.name}; the largest: ${each.text.slice(0, 3).join(", ")}`).join("; "),
    table: () => ({ columns: ["block", "real part", "imaginary part"], rows: traces.flatMap((each) => n.map((at) => [each.block, each.x[at], each.y[at]])) }),
    content: draw.panels([{ x: "real part", y: "imaginary part", traces }], { ratio: 0.6, legend: true, most: 1 }),
    hover: (point) => point.text,
  });
}

function overlapCard(figure, { products, names, i, j, k, prompt, file }) {
  const panels = names.map((name) => {
    const z = corner(products.overlaps[name], k).map((line) => line.map((each) => (each === null ? null : Math.abs(each))));
    const size = z.flat().reduce((sum, each) => sum + each * each, 0) / k;
    return { name, z, title: `${index.overlaps[name].label}\n|${index.overlaps[name].formula.split(",")[0]}|, overlap ${digits(size, 3)}`, hover: CELL };
  });
  return figure.set({
    heading: `Overlaps of blocks ${i} and ${j}`, file: `${file}-overlaps`,
    text: `${names.map((name) => `${index.overlaps[name].label}: ${index.overlaps[name].asks}`).join(" ")} Absolute cosines between single directions, at ${prompt}; the overlap in the title is the mean squared cosine of the top ${k} directions.`,
    role: "application", alternative: `${panels.map((each) => each.title.replace("\n", " ")).join("; ")}. Arrow keys move between cells.`,
    table: () => ({ columns: ["overlap", "row", "column", "absolute cosine"], rows: panels.flatMap((each) => cells(each.z, each.name)) }),
    content: draw.matrices(panels, { scale: { low: 0, high: Math.max(0.1, ...panels.flatMap((each) => each.z.flat())), colours: index.colours.sequential }, bar: "absolute cosine", x: `direction of block ${j}`, y: `direction of block ${i}` }),
    hover: (point) => `${panels[point.curveNumber].name.replaceAll("_", " ")}, row ${draw.cellOf(point)[0]}, column ${draw.cellOf(point)[1]}: ${digits(point.z)}`,
    keys: draw.walking(panels, { tell: (panel, a, b) => { figure.readout(`${panel.name.replaceAll("_", " ")}, row ${a}, column ${b}: ${digits(panel.z[a - 1][b - 1])}`); figure.draw(); } }),
  });
}

const sub = (number) => [...String(number)].map((each) => "₀₁₂₃₄₅₆₇₈₉"[each]).join("");

// View: mis-coupling matrices side by side on one scale, over checkpoints.

import { card, show } from "explore/cards";
import { el, fields } from "explore/dom";
import * as draw from "explore/figures";
import { centre, checkpoints, chosen, datasetField, idOf, index, kinds, lacking, modelField, named, stepOf, steps, words } from "explore/models";
import { digits, scale, strongest } from "explore/numbers";
import { matrix, value } from "explore/packing";
import * as state from "explore/state";
import { exported, payload } from "explore/transport";

const KIND = "miscoupling", TOGETHER = "", EACH = "each";
export const keyOf = (name, model, checkpoint, dataset) => `${name}/${model.catalog}/${model.model}/${checkpoint.checkpoint}/${dataset}`;

export async function matrices(form, figures) {
  const models = chosen([KIND], { multiple: true });
  if (!models.length) throw new Error("This catalog has no mis-coupling matrices: `blockcoupling reduce` makes them; the other views show what it has.");
  const dataset = datasetField(KIND, models), over = steps(models, KIND, dataset.value);
  const beside = state.one("first", "yes") === "yes";
  const wanted = models.flatMap((model) => {
    const [now, first] = [over.at(model), over.first(model)];
    return now === null ? [] : [...(beside && first !== now ? [[model, first]] : []), [model, now]];
  });
  const load = ([model, checkpoint]) => payload(keyOf("matrices", model, checkpoint, dataset.value));
  const found = await Promise.all(wanted.map(load));
  const ends = await Promise.all(models.flatMap((model) => [over.first(model), over.last(model)].filter(Boolean).map((each) => [model, each])).map(load));
  const chosenKind = kinds(found, models[0].catalog);
  const quantities = [["m", "mis-coupling m"], ["se", "standard error of m"],
    ...Object.entries(index.overlaps).filter(([name]) => found.some((each) => each.overlaps[name])).map(([name, each]) => [name, `${each.label} above chance`])];
  const quantity = quantities.some(([name]) => name === state.one("quantity")) ? state.one("quantity") : "m";
  const tokens = quantity in index.overlaps ? [] : [...new Set(found.flatMap((each) => each.tokens ?? []))];
  const apart = [...tokens, ...(tokens.length ? [EACH] : [])].includes(state.one("at")) ? state.one("at") : TOGETHER;
  const places = apart === EACH ? tokens : [apart];
  fields(form, [
    modelField([KIND], models, { multiple: true }), dataset, over.field,
    { kind: "check", id: "first", label: "Untrained (first) checkpoint next to it", value: beside, change: (on) => state.change({ first: on ? "yes" : "no" }) },
    { kind: "select", id: "quantity", label: "Quantity", value: quantity, options: quantities, change: (each) => state.change({ quantity: each }) },
    tokens.length ? { kind: "select", id: "at", label: "Measured at tokens", value: apart, options: [[TOGETHER, "all of them together"], [EACH, "each of them, side by side"], ...tokens.map((each) => [each, each])],
      change: (at) => state.change({ at: at === TOGETHER ? null : at }) } : null,
    ...chosenKind.fields,
  ]);

  const isOverlap = quantity in index.overlaps;
  // Where a payload has a place's matrices: its arrays, and the indices of the one that is shown.
  const find = (each, place) => {
    const at = chosenKind.at(each), n = place === TOGETHER ? 0 : (each.tokens ?? []).indexOf(place);
    return place === TOGETHER ? [each, at] : [each.by_tokens ?? each, [n, ...at]];
  };
  const read = (each, place) => {
    const [own, at] = find(each, place);
    if (at.slice(isOverlap ? 1 : 0).some((n) => n < 0)) return null;
    if (isOverlap && !each.overlaps[quantity]) return null;
    const whole = isOverlap ? matrix(each.overlaps[quantity], at[1]) : matrix(own[quantity], ...at);
    const z = isOverlap && index.overlaps[quantity].own ? whole : withoutDiagonal(whole);
    return z.flat().some((entry) => entry !== null) ? z : null;
  };
  const panels = [], sentences = models.filter((each) => over.at(each) === null).map((each) =>
    `${named(each)} has no matrices on ${dataset.value} (it has ${[...new Set(Object.values(each.has[KIND]).flat())].join(", ")}).`);
  wanted.forEach(([model, checkpoint], n) => places.forEach((place) => {
    const z = read(found[n], place), who = `${named(model)}, ${checkpoint.checkpoint}${place === TOGETHER ? "" : `, at ${place}`}`;
    if (z === null) {
      const why = lacking(found[n], chosenKind, who) ?? `${who} has no ${label(quantity)} for ${words(chosenKind.variant)}, K = ${chosenKind.k}${exported ? " in this file" : ""}.`;
      if (!sentences.includes(why)) sentences.push(why);
      return;
    }
    const [own, at] = find(found[n], place);
    const mean = z.flat().filter((each) => each !== null), errors = quantity === "m" ? errorsOf(own, at) : null;
    const tell = (i, j) => {
      if (i === j && z[i - 1][j - 1] === null) return `${who}: block ${i} with itself`;
      const se = quantity === "m" ? value(own.se, ...at, i - 1, j - 1) : null;
      return `${who}: ${label(quantity)}(${i}, ${j}) = ${digits(z[i - 1][j - 1])}${se === null ? "" : ` ± ${digits(se)}`}`;
    };
    panels.push({ model, checkpoint, place, at: n, z, tell, title: `${who}\nmean ${digits(mean.reduce((a, b) => a + b, 0) / mean.length, 3)}`,
      hover: `${who}: ${label(quantity)}(%{text}) = %{z:.4f}`, ...(errors ? { errors } : {}) });
  }));
  const all = [...panels.map((each) => each.z), ...ends.flatMap((each) => places.map((place) => read(each, place))).filter(Boolean)];
  const chance = isOverlap ? 0 : quantity === "m" ? centre(chosenKind.variant) : null;
  const bar = `${quantities.find(([name]) => name === quantity)[1]}<br>${isOverlap ? "" : `${words(chosenKind.variant)}, `}K = ${chosenKind.k}${chance === null ? "" : `<br>white: ${chance}, about chance`}`;
  const open = (panel, i, j) => state.change({ view: "pair", model: idOf(panel.model), step: stepOf(panel.checkpoint), i, j, row: null });

  const figure = card("matrices");
  const strong = models.flatMap((model) => places.map((place) => answer(model, panels.filter((each) => each.model === model && each.place === place).at(-1), quantity, chosenKind, chance, open))).filter(Boolean);
  show(figures, [strong.length ? el("div", { class: "answer" }, ...strong) : null, ...sentences.map((each) => el("p", { class: "note" }, each)), panels.length ? figure.node : null]);
  if (!panels.length) return;
  await figure.set({
    heading: isOverlap ? `${index.overlaps[quantity].label} of blocks` : "Mis-coupling of blocks",
    file: `matrices-${quantity}-${chosenKind.variant}-K${chosenKind.k}`,
    text: `${isOverlap ? `${index.overlaps[quantity].formula}: ${index.overlaps[quantity].asks}` : "Row i: the block whose Jacobian is taken. Column j: the block whose singular vectors are tried on it."} Means over ${Math.max(...found.map((each) => each.prompts))} prompts of ${dataset.value}. ${quantity === "m" ? "Blue: more coupled than unrelated blocks. " : ""}Click a cell, or move with the arrow keys and press Enter, to open its pair of blocks.`,
    role: "application",
    alternative: `${panels.length} matrices of ${label(quantity)} between blocks: ${panels.map((each) => each.title.replace("\n", ", ")).join("; ")}. Arrow keys move between cells, Enter opens the pair.`,
    table: () => ({ columns: ["model", "checkpoint", "dataset", "variant", "K", ...(tokens.length ? ["tokens"] : []), "i", "j", quantity, ...(quantity === "m" ? ["se"] : [])],
      rows: panels.flatMap(rows) }),
    content: draw.matrices(panels, { scale: scale(all, chance, index.colours, isOverlap), bar, x: "block j", y: "block i" }),
    hover: (point) => panels[point.curveNumber].tell(...draw.cellOf(point)),
    click: (point) => open(panels[point.curveNumber], ...draw.cellOf(point)),
    keys: draw.walking(panels, { open, tell: (panel, i, j) => { figure.readout(panel.tell(i, j)); figure.draw(); } }),
  });

  function rows({ model, checkpoint, place, at: n, z }) {
    const [own, at] = find(found[n], place);
    return z.flatMap((row, i) => row.map((entry, j) => [model.model, checkpoint.checkpoint, dataset.value, isOverlap ? null : chosenKind.variant, chosenKind.k, ...(tokens.length ? [place === TOGETHER ? null : place] : []), i + 1, j + 1,
      plain(entry), ...(quantity === "m" ? [plain(value(own.se, ...at, i, j))] : [])]).filter((_, j) => j !== i));
  }
}

// Standard errors of a matrix of means, null where there are none.
function errorsOf(own, at) {
  const errors = matrix(own.se, ...at);
  return errors.some((row) => row.some((error) => error !== null)) ? errors : null;
}

const label = (quantity) => (quantity in index.overlaps ? index.overlaps[quantity].label : quantity === "se" ? "standard error of m" : "m");
const plain = (number) => (number === null ? null : Number(number.toPrecision(7)));
const withoutDiagonal = (z) => z.map((row, i) => row.map((each, j) => (i === j ? null : each)));

function answer(model, panel, quantity, { variant, k }, chance, open) {
  const best = panel && quantity === "m" ? strongest(panel.z) : null;
  if (best === null) return null;
  return el("p", {}, `In ${named(model)} at ${panel.checkpoint.checkpoint}${panel.place === TOGETHER ? "" : `, at ${panel.place}`}, blocks ${best.i} and ${best.j} couple most: `,
    el("b", {}, `m(${best.i}, ${best.j}) = ${digits(best.m)}`), ` (${words(variant)}, K = ${k}${chance === null ? "" : `; unrelated blocks: about ${chance}`}). `,
    el("button", { type: "button", class: "open", onclick: () => open(panel, best.i, best.j) }, `Open blocks ${best.i} and ${best.j}`));
}

// m of two blocks at every checkpoint of a model, with standard errors.
export async function courseOf(model, dataset, chosenKind, i, j) {
  const own = checkpoints(model, KIND, dataset);
  const found = await Promise.all(own.map((each) => payload(keyOf("matrices", model, each, dataset))));
  return own.map((checkpoint, n) => {
    const [v, k] = chosenKind.at(found[n]);
    const at = (array) => (v < 0 || k < 0 ? null : value(array, v, k, i - 1, j - 1));
    return { checkpoint, m: at(found[n].m), se: at(found[n].se) };
  });
}

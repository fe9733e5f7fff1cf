// View: what ablating blocks does to the model, next to their mis-coupling.

import { card, show } from "explore/cards";
import { el, fields } from "explore/dom";
import * as draw from "explore/figures";
import { keyOf } from "explore/matrices";
import { centre, chosen, datasetField, having, idOf, index, kinds, modelField, named, stepOf, steps, words } from "explore/models";
import { digits, scale, short, spearman } from "explore/numbers";
import { matrix, rowsOf } from "explore/packing";
import * as state from "explore/state";
import { payload } from "explore/transport";

const KIND = "damage";
const OUTCOMES = { kl: "KL divergence of the output, nats", loss_change: "change of the loss, nats" };
const TREATMENTS = { skip: "skip the blocks", swap: "exchange two blocks", merge: "both with mean weights", replace: "run one block in place of the other", exit: "stop after the block" };

export async function ablation(form, figures) {
  const [model] = chosen([KIND, "miscoupling"]);
  if (!model) throw new Error(having(KIND).length
    ? "Ablation is shown next to mis-coupling matrices, and this catalog has none: `blockcoupling reduce` makes them."
    : "No blocks were ablated in this study: add a section `damage` to its configuration.");
  const dataset = datasetField(KIND, [model]), over = steps([model], KIND, dataset.value), checkpoint = over.at(model);
  const [found, means] = await Promise.all(["damage", "matrices"].map((name) => payload(keyOf(name, model, checkpoint, dataset.value))));
  const kind = kinds([means], model.catalog), changes = rowsOf(found.changes);
  const choose = (id, options) => (options.includes(state.one(id)) ? state.one(id) : options[0]);
  const texts = [...new Set(changes.map((each) => each.kind))].sort().reverse(), text = choose("text", texts);
  const treatments = [...new Set(changes.map((each) => each.treatment))], treatment = choose("treatment", ["skip", ...treatments].filter((each) => treatments.includes(each)));
  const outcome = choose("outcome", Object.keys(OUTCOMES));
  const pick = (id, label, options, value) => ({ kind: "select", id, label, options, value, change: (each) => state.change({ [id]: each }) });
  fields(form, [modelField([KIND, "miscoupling"], [model]), dataset, over.field,
    pick("treatment", "Ablation", treatments.map((each) => [each, TREATMENTS[each] ?? each]), treatment),
    pick("outcome", "Damage", Object.entries(OUTCOMES), outcome),
    pick("text", "Texts", texts.map((each) => [each, each === "prompt" ? "prompts" : "held-out passages"]), text), ...kind.fields]);

  const m = matrix(means.m, ...kind.at(means)).map((row, i) => row.map((each, j) => (i === j ? null : each)));
  const own = changes.filter((each) => each.kind === text && each.treatment === treatment);
  const z = m.map((row) => row.map(() => null));
  own.forEach((each) => { z[each.block - 1][each.block_other - 1] = each[outcome]; });
  const pairs = own.filter((each) => each.block !== each.block_other && each[outcome] !== null), single = own.filter((each) => each.block === each.block_other && each[outcome] !== null);
  const who = `${named(model)}, ${checkpoint.checkpoint}`, what = OUTCOMES[outcome], open = (i, j) => state.change({ view: "pair", model: idOf(model), step: stepOf(checkpoint), i, j, row: null });
  const [both, scatter, alone] = [card("ablation"), card("ablation-pairs"), card("ablation-blocks")];
  const refused = own.find((each) => each.reason);
  show(figures, [refused ? el("p", { class: "note" }, `Some changes were impossible: ${refused.reason}.`) : null, pairs.length ? both.node : null, pairs.length ? scatter.node : null, single.length ? alone.node : null]);
  const file = `ablation-${treatment}-${outcome}-${model.model}-${checkpoint.checkpoint}`, work = [];
  const row = (each) => [model.model, checkpoint.checkpoint, text, treatment, each.block, each.block_other, each.kl, each.loss_change, m[each.block - 1][each.block_other - 1]];
  const table = (list) => ({ columns: ["model", "checkpoint", "texts", "treatment", "block", "block_other", "kl", "loss_change", "m"], rows: list.map(row) });
  if (pairs.length) {
    const chance = centre(kind.variant), damages = pairs.map((each) => each[outcome]);
    const panels = [
      { name: "m", z: m, title: `${who}\nmis-coupling m`, scale: 0, hover: "m(%{text}) = %{z:.4f}" },
      { name: "damage", z, title: `${who}\n${TREATMENTS[treatment] ?? treatment}`, scale: 1, hover: "blocks %{text}: %{z:.3~g}" }];
    const tell = (panel, i, j) => (panel.name === "m" ? `m(${i}, ${j}) = ${digits(panel.z[i - 1][j - 1])}` : `${TREATMENTS[treatment] ?? treatment}, blocks ${i} and ${j}: ${what} ${short(panel.z[i - 1][j - 1])}`);
    work.push(both.set({
      heading: "Mis-coupling and ablation damage", file, role: "application",
      text: `Left: m(i, j), as in the matrices. Right: damage of changing blocks i and j (on the diagonal: block i alone), mean over ${own[0].texts} ${text === "prompt" ? "prompts" : "held-out passages"}; grey: not done. Click a cell to open its pair of blocks.`,
      alternative: `Two matrices for ${who}: mis-coupling, and ${what} after: ${TREATMENTS[treatment] ?? treatment}. The most damaging pair: ${biggest(pairs, outcome)}. Arrow keys move between cells, Enter opens the pair.`,
      table: () => table(own),
      content: draw.matrices(panels, { x: "block j", y: "block i", scales: [
        { ...scale([m], chance, index.colours), title: `m, ${words(kind.variant)}, K = ${kind.k}` },
        { low: Math.min(0, ...damages, ...single.map((each) => each[outcome])), high: Math.max(...damages, ...single.map((each) => each[outcome])), colours: index.colours.sequential, title: what }] }),
      hover: (point) => tell(panels[point.curveNumber], ...draw.cellOf(point)), click: (point) => open(...draw.cellOf(point)),
      keys: draw.walking(panels, { open: (_, i, j) => open(i, j), tell: (panel, i, j) => { both.readout(tell(panel, i, j)); both.draw(); } }),
    }));
    const points = pairs.map((each) => ({ ...each, x: m[each.block - 1][each.block_other - 1], y: each[outcome] })).filter((each) => each.x !== null);
    const rho = spearman(points), reported = rowsOf(found.statistics).find((each) => each.treatment === treatment && each.blocks === "two" && each.outcome === outcome && each.variant === kind.variant && each.k === kind.k);
    work.push(scatter.set({
      heading: "Damage against mis-coupling", file: `${file}-pairs`,
      text: `Spearman's ρ = ${digits(rho, 2)} over ${points.length} pairs of blocks.${reported && reported.rho !== null ? ` The study's statistics, over all texts: ρ = ${digits(reported.rho, 2)}, p = ${short(reported.p)}.` : ""}`,
      alternative: `${points.length} pairs of blocks, damage against m; Spearman's rho ${digits(rho, 2)}.`, table: () => table(pairs),
      content: draw.panels([{ x: `m(i, j), ${words(kind.variant)}, K = ${kind.k}`, y: what, traces: [{ mode: "markers+text", x: points.map((each) => each.x), y: points.map((each) => each.y), hovertext: points.map((each) => `blocks ${each.block} and ${each.block_other}`), hovertemplate: "%{hovertext}: m %{x:.4f}, damage %{y:.4g}<extra></extra>", text: points.map((each) => (points.length > 40 ? "" : `${each.block}, ${each.block_other}`)), textposition: "top center", textfont: { size: 11 }, marker: { size: 9, color: draw.colour(0) } }] }], { ratio: 0.5, most: 1 }),
      hover: (point) => `blocks ${points[point.pointIndex].block} and ${points[point.pointIndex].block_other}: m = ${digits(points[point.pointIndex].x)}, ${what} ${short(points[point.pointIndex].y)}`,
      click: (point) => open(points[point.pointIndex].block, points[point.pointIndex].block_other),
    }));
  }
  if (single.length) {
    const mean = (i) => { const values = m[i - 1].filter((each) => each !== null); return values.reduce((a, b) => a + b, 0) / values.length; };
    const x = single.map((each) => each.block), bar = (y, colour, tell) => ({ type: "bar", x, y, marker: { color: colour }, text: x.map((each, n) => tell(each, y[n])), textposition: "none" });
    work.push(alone.set({
      heading: "Single blocks", file: `${file}-blocks`, text: `${TREATMENTS[treatment] ?? treatment}, one block at a time; next to it, the mean of m(i, j) over the other blocks j.`,
      alternative: single.map((each) => `block ${each.block}: ${what} ${short(each[outcome])}, mean m ${digits(mean(each.block), 3)}`).join("; "), table: () => table(single),
      content: draw.panels([
        { x: "block i", y: what, xaxis: { dtick: x.length > 12 ? 4 : 1 }, traces: [bar(single.map((each) => each[outcome]), draw.colour(1), (i, y) => `block ${i}: ${short(y)}`)] },
        { x: "block i", y: "mean of m(i, j)", xaxis: { dtick: x.length > 12 ? 4 : 1 }, traces: [bar(x.map(mean), draw.colour(0), (i, y) => `block ${i}: ${digits(y)}`)] }], { ratio: 0.6, most: 2 }),
      hover: (point) => point.text,
    }));
  }
  await Promise.all(work);
}

function biggest(pairs, outcome) {
  const found = pairs.reduce((a, b) => (b[outcome] > a[outcome] ? b : a));
  return `blocks ${found.block} and ${found.block_other}, ${short(found[outcome])}`;
}

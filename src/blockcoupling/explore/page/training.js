// View: measurements and scores over training steps, a line per model.

import { card, show } from "explore/cards";
import { el, fields } from "explore/dom";
import * as draw from "explore/figures";
import { chosen, idOf, index, kinds, modelField, named, stepOf, words } from "explore/models";
import { short } from "explore/numbers";
import { rowsOf } from "explore/packing";
import * as state from "explore/state";
import { payload } from "explore/transport";

const KIND = "coupling", FIRST = ["coupling", "excess", "line_shape_score", "expodistance"];

export async function training(form, figures) {
  const models = chosen([KIND], { multiple: true, otherwise: (able) => able.filter((each) => each.family === able.at(-1)?.family).slice(-4) });
  if (!models.length) throw new Error("This catalog has no coupling tables: `blockcoupling reduce` makes them.");
  const courses = await Promise.all(models.map((each) => payload(`course/${each.catalog}/${each.model}`)));
  const measured = courses.map((each) => rowsOf(each.measures)), scored = courses.map((each) => rowsOf(each.scores));
  const datasets = [...new Set(measured.flat().map((each) => each.dataset))].sort();
  const dataset = datasets.includes(state.one("dataset")) ? state.one("dataset") : datasets[0];
  const couplings = measured.flat().filter((each) => each.measure === "coupling");
  const kind = kinds([{ variants: [...new Set(couplings.map((each) => each.variant))], ks: [...new Set(couplings.map((each) => each.k))] }], models[0].catalog);
  const names = new Map([...new Set(measured.flat().map((each) => each.measure))].map((each) => [each, index.labels[each] ?? each]));
  const scores = [...new Set(scored.flat().map((each) => `${each.score}.${each.metric}`))];
  scores.forEach((each) => names.set(each, each.replace(".", ", ").replaceAll("_", " ")));
  const standard = [...FIRST.filter((each) => names.has(each)), ...scores.slice(0, 1)];
  const asked = state.all("measure").filter((each) => names.has(each)), shown = asked.length ? asked : standard;
  fields(form, [modelField([KIND], models, { multiple: true }),
    { kind: "checks", id: "measure", label: "Measurements and scores", options: [...names], value: shown, change: (measure) => state.change({ measure }) },
    { kind: "select", id: "dataset", label: "Dataset of the measurements", value: dataset, options: datasets.map((each) => [each, each]), change: (each) => state.change({ dataset: each }) },
    ...kind.fields]);

  const colours = draw.colours(models.length), stepsOf = (model) => new Map(model.checkpoints.map((each) => [each.checkpoint, each]));
  const panels = shown.map((measure) => ({ measure, y: names.get(measure), x: "training step", steps: [], traces: [] }));
  const rows = [];
  panels.forEach((panel, p) => models.forEach((model, n) => {
    const known = stepsOf(model);
    const own = scores.includes(panel.measure)
      ? scored[n].filter((each) => `${each.score}.${each.metric}` === panel.measure).map((each) => ({ checkpoint: known.get(each.checkpoint), mean: each.value, se: each.standard_error }))
      : measured[n].filter((each) => each.measure === panel.measure && each.dataset === dataset && (each.variant ?? kind.variant) === kind.variant && (each.k ?? kind.k) === kind.k).map((each) => ({ checkpoint: known.get(each.checkpoint), mean: each.mean, se: each.se }));
    const placed = own.filter((each) => Number.isFinite(each.checkpoint?.step) && each.mean !== null).sort((a, b) => a.checkpoint.step - b.checkpoint.step);
    if (placed.some((each) => /^epoch/.test(each.checkpoint.checkpoint))) panel.x = "epoch";
    panel.steps.push(...placed.map((each) => each.checkpoint.step));
    panel.traces.push({ name: named(model), showlegend: p === 0, legendgroup: named(model), mode: "lines+markers", model, points: placed,
      x: placed.map((each) => draw.placed(each.checkpoint.step)), y: placed.map((each) => each.mean),
      text: placed.map((each) => `${named(model)}, ${each.checkpoint.checkpoint}<br>${names.get(panel.measure)}: ${short(each.mean)}${each.se === null ? "" : ` ± ${short(each.se)}`}`),
      line: { color: colours[n], width: 1.8 }, marker: { color: colours[n], size: 7, symbol: draw.symbols[n % draw.symbols.length] },
      error_y: { type: "data", array: placed.map((each) => each.se ?? 0), thickness: 1, width: 2 } });
    rows.push(...placed.map((each) => [model.model, each.checkpoint.checkpoint, each.checkpoint.step, scores.includes(panel.measure) ? null : dataset, panel.measure, each.mean, each.se]));
  }));
  panels.forEach((each) => { each.xaxis = draw.stepAxis(each.steps); });
  const traces = panels.flatMap((each) => each.traces), figure = card("training");
  const released = rows.length ? null : "None of these checkpoints has a training step: choose models that were measured during training.";
  show(figures, [released ? el("p", { class: "note" }, released) : null, figure.node]);
  await figure.set({
    heading: "Over training", file: "training",
    text: `Means over the prompts of ${dataset} at their last tokens, bars: one standard error; coupling for ${words(kind.variant)}, K = ${kind.k}. The axis is logarithmic, with 0. Click a point for the matrix of its checkpoint.`,
    alternative: panels.map((panel) => `${panel.y}: ${panel.traces.map((each) => (each.y.length ? `${each.name} from ${short(each.y[0])} to ${short(each.y.at(-1))}` : `${each.name} none`)).join("; ")}`).join(". "),
    table: () => ({ columns: ["model", "checkpoint", "step", "dataset", "measure", "mean", "se"], rows }),
    content: draw.panels(panels, { legend: true, least: 290, ratio: 0.72 }),
    hover: (point) => point.text.replace("<br>", ", "),
    click: (point) => {
      const { model, points } = traces[point.curveNumber];
      state.change({ view: "matrices", model: idOf(model), step: stepOf(points[point.pointIndex].checkpoint) });
    },
  });
}

// View: any predictor against any score, with fit and interval; points open their model.

import { card, show } from "explore/cards";
import { el, fields } from "explore/dom";
import * as draw from "explore/figures";
import { having, index, stepOf, words } from "explore/models";
import { digits, fit, short } from "explore/numbers";
import { rowsOf } from "explore/packing";
import * as state from "explore/state";
import { payload } from "explore/transport";

export async function scores(form, figures) {
  const found = await Promise.all(index.catalogs.map((_, n) => payload(`points/${n}`)));
  const every = found.flatMap((each, catalog) => rowsOf(each.points).map((point) => ({ ...point, catalog })));
  const predictors = Object.assign({}, ...found.map((each) => each.predictors)), metrics = Object.assign({}, ...found.map((each) => each.scores));
  if (!every.length || !Object.keys(metrics).length) throw new Error("This catalog has no scores to compare measurements with: `blockcoupling score` makes them.");
  const name = (metric) => metric.replace(".", ", ").replaceAll("_", " ");
  const predictor = state.one("predictor") in predictors ? state.one("predictor") : Object.keys(predictors)[0];
  const score = state.one("score") in metrics ? state.one("score") : best(every, predictor, Object.keys(metrics));
  const scored = every.filter((each) => known(each[predictor]) && known(each[score]));
  const families = [...new Set(scored.map((each) => each.family ?? "unknown"))].sort();
  const wanted = state.all("family").filter((each) => families.includes(each)), chosenFamilies = wanted.length ? wanted : families;
  const [low, high] = ["low", "high"].map((each) => (state.one(each) === null ? null : Number(state.one(each))));
  const final = state.one("final", "no") === "yes";
  const by = state.one("colour", families.length > 1 ? "family" : "origin");
  const points = scored.filter((each) => chosenFamilies.includes(each.family ?? "unknown") && (low === null || each.parameters >= low) && (high === null || each.parameters <= high) && (!final || each.final));
  fields(form, [
    { kind: "select", id: "predictor", label: "Predictor", value: predictor, options: Object.entries(predictors), change: (each) => state.change({ predictor: each }) },
    { kind: "select", id: "score", label: "Score", value: score, options: Object.keys(metrics).map((each) => [each, name(each)]), change: (each) => state.change({ score: each, family: null }) },
    { kind: "check", id: "final", label: "Final checkpoints only", value: final, change: (on) => state.change({ final: on ? "yes" : "no" }) },
    { kind: "select", id: "colour", label: "Colour by", value: by, options: [["family", "family"], ["origin", "model"]], change: (colour) => state.change({ colour }) },
    { kind: "checks", id: "family", label: "Families", options: families.map((each) => [each, each]), value: chosenFamilies, change: (family) => state.change({ family: family.length === families.length ? null : family }) },
    { kind: "number", id: "low", label: "Parameters, at least", value: low, placeholder: "any", change: (each) => state.change({ low: each || null }) },
    { kind: "number", id: "high", label: "Parameters, at most", value: high, placeholder: "any", change: (each) => state.change({ high: each || null }) },
  ]);

  const line = fit(points.map((each) => ({ x: each[predictor], y: each[score] })), found[0].t);
  const groups = [...new Set(scored.map((each) => each[by] ?? "unknown"))].sort(), colours = draw.colours(groups.length);
  const tell = (each) => `${each.model}, ${each.checkpoint}: ${predictors[predictor]} ${digits(each[predictor])}, ${name(score)} ${short(each[score])}`;
  const traces = groups.map((group, n) => {
    const own = points.filter((each) => (each[by] ?? "unknown") === group);
    return { name: group, own, mode: "markers", x: own.map((each) => each[predictor]), y: own.map((each) => each[score]), text: own.map(tell),
      error_x: { type: "data", array: own.map((each) => each[`${predictor}_se`] ?? 0), thickness: 1, width: 0 },
      marker: { color: colours[n], symbol: draw.symbols[n % draw.symbols.length], size: 9, line: { width: 0.6, color: "white" } } };
  }).filter((each) => each.own.length);
  const fitted = [];
  if (line) {
    const xs = points.map((each) => each[predictor]), [from, to] = [Math.min(...xs), Math.max(...xs)];
    const x = Array.from({ length: 41 }, (_, n) => from + ((to - from) * n) / 40);
    fitted.push({ x: [...x, ...x.toReversed()], y: [...x.map((each) => line.at(each) + line.band(each)), ...x.toReversed().map((each) => line.at(each) - line.band(each))], fill: "toself", mode: "none", fillcolor: "rgba(128,128,128,.22)", hoverinfo: "skip", showlegend: false },
      { x, y: x.map(line.at), mode: "lines", line: { dash: "dash", width: 1.4, color: "#808080" }, hoverinfo: "skip", showlegend: false });
  }
  const reported = found.length === 1 ? of(rowsOf(found[0].lines), predictor, score, final) : null;
  const said = line ? `R² = ${digits(line.r2, 2)}, ${line.n} points` : "too few points for a line";
  const study = reported ? ` The study's own statistics (${reported.subset}, n = ${reported.n}): R² = ${digits(reported.r2, 2)} [${digits(reported.r2_low, 2)}, ${digits(reported.r2_high, 2)}], p = ${short(reported.pearson_p)}, resampled by model.` : "";
  const figure = card("scores"), all = [...fitted, ...traces];
  show(figures, [figure.node]);
  await figure.set({
    heading: `${capital(predictors[predictor])} and ${name(score)}`, file: `${predictor}-${score}`,
    text: `Dashed: least squares; band: 95 % confidence of the line if the points were independent, which checkpoints of one model are not.${study} ${metrics[score] ? "Higher" : "Lower"} is better. ${found[0].k ? `Coupling and overlaps: ${words(found[0].variant)}, K = ${found[0].k}. ` : ""}Click a point to open its model.`,
    alternative: `${line ? `${points.length} checkpoints; slope ${short(line.slope)}, R² ${digits(line.r2, 2)}` : `${points.length} checkpoints`}: ${predictors[predictor]} against ${name(score)}.`,
    table: () => ({ columns: ["model", "checkpoint", "family", "parameters", predictor, `${predictor}_se`, score], rows: points.map((each) => [each.model, each.checkpoint, each.family, each.parameters, each[predictor], each[`${predictor}_se`], each[score]]) }),
    content: draw.panels([{ x: predictors[predictor], y: name(score), traces: all, title: said }], { legend: true, ratio: 0.62, most: 1 }),
    hover: (point) => point.text,
    click: (point) => openModel(all[point.curveNumber].own?.[point.pointIndex]),
    keys: keys(figure, points, tell),
  });
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

// The score with most points among those that come first by name.
function best(points, predictor, names) {
  const number = (metric) => points.filter((each) => known(each[predictor]) && known(each[metric])).length;
  return [...names].sort((a, b) => number(b) - number(a))[0];
}

function of(lines, predictor, score, final) {
  return lines.find((each) => each.predictor === predictor && `${each.score}.${each.metric}` === score && each.subset.startsWith(final ? "final" : "all")) ?? null;
}

function openModel(point) {
  if (!point) return;
  const model = having("miscoupling").find((each) => each.catalog === point.catalog && each.model === point.model);
  const checkpoint = model?.checkpoints.find((each) => each.checkpoint === point.checkpoint);
  if (checkpoint) state.change({ view: "matrices", model: `${point.catalog}:${point.model}`, step: stepOf(checkpoint) });
}

// Arrow keys go through the points from left to right; Enter opens the model.
function keys(figure, points, tell) {
  let at = -1;
  return (event) => {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (move && points.length) {
      at = (at + move + points.length) % points.length;
      figure.readout(tell(points[at]));
    } else if (event.key === "Enter") openModel(points[at]);
    else return;
    event.preventDefault();
  };
}

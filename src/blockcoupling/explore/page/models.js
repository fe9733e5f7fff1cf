// What the catalogs have: models, their checkpoints, and which of them the page shows.

import { count } from "explore/numbers";
import * as state from "explore/state";

export let index = null;
export const take = (found) => { index = found; };

export const idOf = (model) => `${model.catalog}:${model.model}`;
export const byId = (id) => index.models.find((each) => idOf(each) === id);
export const having = (...kinds) => index.models.filter((each) => kinds.every((kind) => each.has[kind]));
export const named = (model) =>
  index.catalogs.length > 1 ? `${model.model} (${index.catalogs[model.catalog].title})` : model.model;
export const words = (name) => index.variants[name]?.words ?? name;
export const centre = (variant) => index.variants[variant]?.centre ?? null;

// The models that the address names, of those that have some kinds of data; otherwise the largest.
export function chosen(kinds, { multiple = false, otherwise } = {}) {
  const able = having(...kinds);
  const found = state.all("model").map(byId).filter((each) => able.includes(each));
  if (found.length) return multiple ? found.slice(0, MOST) : found.slice(0, 1);
  return otherwise && !state.all("model").length ? otherwise(able) : able.slice(-1);
}
export const MOST = 12;

export function modelField(kinds, models, { multiple = false } = {}) {
  const options = having(...kinds).reverse().map((each) =>
    [idOf(each), named(each), [each.parameters === null ? null : count(each.parameters), each.family].filter(Boolean).join(", ")]);
  return {
    kind: "models", id: "model", multiple, options,
    label: multiple ? `Models (at most ${MOST}), the largest first` : "Model, the largest first",
    value: models.map(idOf),
    change: (values) => state.change({ model: values }),
  };
}

export function datasetField(kind, models) {
  const names = [...new Set(models.flatMap((each) => Object.values(each.has[kind]).flat()))].sort();
  const wanted = state.one("dataset");
  const value = names.includes(wanted) ? wanted : names[0];
  return { kind: "select", id: "dataset", label: "Dataset", value, options: names.map((each) => [each, each]),
    change: (dataset) => state.change({ dataset }) };
}

// Checkpoints that have some kind of data on a dataset, in the order of training.
export const checkpoints = (model, kind, dataset) =>
  model.checkpoints.filter((each) => model.has[kind]?.[each.checkpoint]?.includes(dataset));

const place = (checkpoint) => checkpoint.step ?? Infinity;

// A slider over all steps of the models; `at(model)`: the checkpoint reached by then.
export function steps(models, kind, dataset) {
  const own = new Map(models.map((each) => [each, checkpoints(each, kind, dataset)]));
  const marks = [...new Set([...own.values()].flat().map(place))].sort((a, b) => a - b);
  const wanted = state.one("step");
  const found = wanted === null ? -1 : marks.findIndex((each) => String(each) === wanted);
  const value = found < 0 ? marks.length - 1 : found;
  const names = marks.map((mark) =>
    [...new Set([...own.values()].flat().filter((each) => place(each) === mark).map((each) => each.checkpoint))].join(", "));
  return {
    at: (model) => own.get(model).filter((each) => place(each) <= marks[value]).at(-1) ?? null,
    first: (model) => own.get(model)[0] ?? null,
    last: (model) => own.get(model).at(-1) ?? null,
    field: { kind: "slider", id: "step", label: "Checkpoint", marks: names, value,
      change: (n) => state.change({ step: marks[n] }, { keep: true }) },
  };
}

export const stepOf = (checkpoint) => String(place(checkpoint));

// Fields for the variant and K among those that some payloads have; `wanted` in the order of trust.
export function kinds(payloads, catalog) {
  const about = index.catalogs[catalog];
  const variants = [...new Set(payloads.flatMap((each) => each.variants))];
  const ks = [...new Set(payloads.flatMap((each) => each.ks))].sort((a, b) => a - b);
  const variant = [state.one("variant"), about.variant, variants[0]].find((each) => variants.includes(each));
  const k = [Number(state.one("k")), about.k, ks.filter((each) => each <= 10).at(-1), ks[0]].find((each) => ks.includes(each));
  return {
    variant, k,
    at: (payload) => [payload.variants.indexOf(variant), payload.ks.indexOf(k)],
    fields: [
      { kind: "select", id: "variant", label: "Variant of m", value: variant, options: variants.map((each) => [each, words(each)]),
        change: (value) => state.change({ variant: value }) },
      { kind: "select", id: "k", label: "K, singular vectors", value: k, options: ks.map((each) => [each, String(each)]),
        change: (value) => state.change({ k: value }) },
    ],
  };
}

// The sentence for a measurement that lacks the chosen variant or K; null if it has both.
export function lacking(payload, { variant, k }, who) {
  if (!payload.variants.includes(variant)) return `${who} has no variant ${words(variant)} (it has ${payload.variants.map(words).join(", ")}).`;
  if (!payload.ks.includes(k)) return `${who} has no K = ${k} (it has ${payload.ks.join(", ")}).`;
  return null;
}

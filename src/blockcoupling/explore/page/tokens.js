// View: mis-coupling between tokens of a prompt, for a pair of blocks.

import { card, show } from "explore/cards";
import { fields } from "explore/dom";
import * as draw from "explore/figures";
import { keyOf } from "explore/matrices";
import { centre, chosen, datasetField, index, kinds, modelField, named, steps, words } from "explore/models";
import { digits, scale } from "explore/numbers";
import { rowsOf, value } from "explore/packing";
import * as state from "explore/state";
import { payload } from "explore/transport";

const KIND = "tokenwise";
const COMPARISONS = {
  self: ["each token with each other, J[t, t]", "token_out", null],
  input_fixed: ["output tokens, input token fixed, J[t₁, t]", "token_out", "token_in"],
  output_fixed: ["input tokens, output token fixed, J[t, t₂]", "token_in", "token_out"],
};

export async function tokens(form, figures) {
  const [model] = chosen([KIND]);
  if (!model) throw new Error("No tokens were compared in this study: add a section `tokenwise` to its configuration.");
  const dataset = datasetField(KIND, [model]), over = steps([model], KIND, dataset.value);
  const wanted = [...new Set([over.first(model), over.at(model)])];
  const found = await Promise.all(wanted.map((each) => payload(keyOf("tokens", model, each, dataset.value))));
  const kind = kinds(found, model.catalog), now = found.at(-1), rows = rowsOf(now.rows);
  const choose = (id, options, fallback) => (options.includes(state.one(id)) ? state.one(id) : fallback ?? options[0]);
  const unique = (list) => [...new Set(list.map(String))];
  const prompt = choose("prompt", unique(now.rows.prompt));
  const comparison = choose("comparison", Object.keys(COMPARISONS).filter((each) => now.rows.comparison.includes(each)));
  const [, axis, fixed] = COMPARISONS[comparison];
  const own = rows.filter((each) => String(each.prompt) === prompt && each.comparison === comparison);
  const blocks = choose("blocks", unique(own.map((each) => `${each.block}-${each.block_other}`)));
  const anchors = fixed ? unique(own.map((each) => each[fixed])) : [];
  const anchor = fixed ? choose("token", anchors, comparison === "input_fixed" ? anchors[0] : anchors.at(-1)) : null;
  const text = (token, texts) => { const word = texts[prompt]?.[token]?.trim(); return `${word === undefined ? "" : `${word || "␣"} `}${token}`; };
  const pick = (id, label, options, current) => ({ kind: "select", id, label, options, value: current, change: (each) => state.change({ [id]: each }) });
  fields(form, [modelField([KIND], [model]), dataset, over.field,
    pick("prompt", "Prompt", unique(now.rows.prompt).map((each) => [each, each]), prompt),
    pick("comparison", "Compared", Object.entries(COMPARISONS).filter(([each]) => now.rows.comparison.includes(each)).map(([each, [words_]]) => [each, words_]), comparison),
    pick("blocks", "Blocks i, j", unique(own.map((each) => `${each.block}-${each.block_other}`)).map((each) => [each, each.replace("-", " and ")]), blocks),
    fixed ? pick("token", fixed === "token_in" ? "Input token t₁" : "Output token t₂", anchors.map((each) => [each, text(each, now.texts)]), anchor) : null,
    ...kind.fields]);

  const table = [], panels = wanted.map((checkpoint, n) => {
    const each = found[n], [v, k] = kind.at(each), listed = rowsOf(each.rows);
    const used = listed.map((row, at) => ({ ...row, at })).filter((row) => String(row.prompt) === prompt && row.comparison === comparison && `${row.block}-${row.block_other}` === blocks && (!fixed || String(row[fixed]) === anchor));
    const places = [...new Set(used.flatMap((row) => [row[axis], row[`${axis}_other`]]))].sort((a, b) => a - b);
    const z = places.map(() => places.map(() => null));
    used.forEach((row) => {
      const m = v < 0 || k < 0 ? null : value(each.m, row.at, v, k), [a, b] = [places.indexOf(row[axis]), places.indexOf(row[`${axis}_other`])];
      z[a][b] = a === b && row.block === row.block_other ? null : m;
      table.push([checkpoint.checkpoint, prompt, comparison, row.block, row.block_other, row.token_in, row.token_out, row.token_in_other, row.token_out_other, m]);
    });
    const labels = places.map((token) => text(token, each.texts));
    return { z, labels, title: `${named(model)}, ${checkpoint.checkpoint}`, texts: z.map((line, a) => line.map((m, b) => `${labels[a]} and ${labels[b]}: m = ${digits(m)}`)) };
  });
  const chance = centre(kind.variant), figure = card("tokens");
  show(figures, [figure.node]);
  await figure.set({
    heading: `Mis-coupling between tokens, blocks ${blocks.replace("-", " and ")}`, file: `tokens-${comparison}-${blocks}`,
    text: `Prompt ${prompt}: ${COMPARISONS[comparison][0]}. Row: the Jacobian, column: the singular vectors tried on it. ${words(kind.variant)}, K = ${kind.k}.`,
    role: "application", alternative: `Mis-coupling between ${panels[0].labels.length} tokens (${panels[0].labels.join(", ")}) of prompt ${prompt} in ${panels.map((each) => each.title).join(" and ")}. Arrow keys move between cells.`,
    table: () => ({ columns: ["checkpoint", "prompt", "comparison", "block", "block_other", "token_in", "token_out", "token_in_other", "token_out_other", "m"], rows: table }),
    content: draw.matrices(panels, { scale: scale(panels.map((each) => each.z), chance, index.colours), bar: `mis-coupling m<br>${words(kind.variant)}, K = ${kind.k}${chance === null ? "" : `<br>white: ${chance}, about chance`}`, x: "token", y: "token" }),
    hover: ({ curveNumber: n, pointNumber: [a, b] }) => `${panels[n].title}, ${panels[n].texts[a][b]}`,
    keys: draw.walking(panels, { tell: (panel, a, b) => { figure.readout(`${panel.title}, ${panel.texts[a - 1][b - 1]}`); figure.draw(); } }),
  });
}

// The page: its views, and drawing the one that the address names.

import { ablation } from "explore/ablation";
import { redraw, show } from "explore/cards";
import { el, fields } from "explore/dom";
import { matrices } from "explore/matrices";
import { index, take } from "explore/models";
import { pair } from "explore/pair";
import { scores } from "explore/scores";
import * as state from "explore/state";
import { tokens } from "explore/tokens";
import { training } from "explore/training";
import { exported, payload, plotly } from "explore/transport";

const VIEWS = {
  matrices: ["Matrices", matrices], pair: ["Pair of blocks", pair], training: ["Over training", training],
  scores: ["Against scores", scores], tokens: ["Tokens", tokens], ablation: ["Ablation", ablation],
};
const at = (id) => document.getElementById(id);
const form = at("controls"), figures = at("figures"), problem = at("problem");
let turn = 0, running = null, again = false;

function complain(message) {
  problem.textContent = message;
  problem.hidden = !message;
}

// One drawing at a time; a change meanwhile is drawn after it.
function render() {
  if (running) { again = true; return running; }
  running = (async () => {
    do { again = false; await draw(); } while (again);
  })().finally(() => { running = null; });
  return running;
}

async function draw() {
  const name = state.one("view", "matrices") in VIEWS ? state.one("view", "matrices") : "matrices", [title, view] = VIEWS[name];
  for (const each of at("views").children) each.toggleAttribute("aria-current", each.dataset.view === name);
  figures.setAttribute("aria-busy", "true");
  if (form.dataset.view !== name) { fields(form, []); show(figures, []); complain(""); form.dataset.view = name; }
  document.title = `${title} – ${at("views").dataset.title}`;
  try {
    await view(form, figures);
    complain("");
  } catch (error) {
    if (!(error instanceof Error) || error.name !== "Error") throw error; // a fault of this page
    show(figures, []);
    complain(error.message);
  } finally {
    figures.setAttribute("aria-busy", "false");
    document.documentElement.dataset.drawn = String(turn += 1);
  }
}

async function link() {
  try {
    await navigator.clipboard.writeText(location.href);
    at("link").textContent = "Copied";
  } catch {
    prompt("The link to this view:", location.href);
  }
  setTimeout(() => { at("link").textContent = "Copy link to this view"; }, 1500);
}

async function start() {
  if (!problem.hidden) return; // the browser is too old, and the page says so
  try {
    take(await payload("index"));
  } catch (error) {
    complain(error.message);
    figures.replaceChildren();
    return;
  }
  plotly().catch((error) => complain(error.message));
  at("views").dataset.title = document.title;
  at("views").append(...Object.entries(VIEWS).map(([name, [text]]) => el("a", { href: "#", "data-view": name, onclick: (event) => {
    event.preventDefault();
    state.change({ view: name });
  } }, text)));
  at("link").addEventListener("click", link);
  at("skip").addEventListener("click", (event) => { event.preventDefault(); figures.focus(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  at("about").textContent = `blockcoupling ${index.version}. ${exported ? `This file contains its data and fetches nothing. ${index.left_out ?? ""}` : ""}`;
  state.listen(render);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  await render();
}

start();

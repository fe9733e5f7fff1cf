// Payloads by key, from this file if it contains them, otherwise from the server that sent the page.

import { inflated, unpacked } from "explore/packing";

const kept = new Map();
const contained = (key) => document.getElementById(`data:${key}`);

export const exported = contained("index") !== null;
// Of an exported file: whether it contains a payload.
export const available = (key) => !exported || contained(key) !== null;

export function payload(key) {
  if (!kept.has(key)) {
    const found = (exported ? embedded(key) : served(key)).then(unpacked);
    kept.set(key, found);
    found.catch(() => kept.delete(key)); // the next attempt asks again
  }
  return kept.get(key);
}

async function embedded(key) {
  if (!available(key)) throw new Error("This file does not contain these data: open the catalog with `blockcoupling explore`.");
  return JSON.parse(await inflated(contained(key).textContent));
}

async function served(key) {
  let answer;
  try {
    answer = await fetch(`data/${key}`);
  } catch {
    throw new Error("The explorer's server does not answer: start `blockcoupling explore` again.");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

let drawing;
export function plotly() {
  drawing ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error("The plotting library could not be loaded."));
    if (!exported) script.src = "plotly.js";
    else inflated(contained("plotly").textContent).then((text) => {
      script.src = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    }, reject);
    document.head.append(script);
  });
  return drawing;
}

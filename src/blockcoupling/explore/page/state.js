// What is shown, as the address of the page says it: every view has a link that restores it.

const listeners = [];
let current = parsed();

function parsed() {
  const found = new URLSearchParams(location.hash.slice(1)), state = {};
  for (const name of new Set(found.keys())) state[name] = found.getAll(name);
  return state;
}

function written(state) {
  const found = new URLSearchParams();
  for (const [name, values] of Object.entries(state)) values.forEach((each) => found.append(name, each));
  return `#${found}`;
}

export const all = (name) => current[name] ?? [];
export const one = (name, otherwise = null) => current[name]?.[0] ?? otherwise;

// Change some values (null removes one); `keep`: without an entry of its own in the history.
export function change(values, { keep = false } = {}) {
  const next = { ...current };
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value.length === 0) delete next[name];
    else next[name] = (Array.isArray(value) ? value : [value]).map(String);
  }
  const hash = written(next);
  if (hash === written(current)) return Promise.resolve();
  current = next;
  history[keep ? "replaceState" : "pushState"](null, "", hash);
  return changed();
}

const changed = () => Promise.all(listeners.map((each) => each()));
export const listen = (listener) => listeners.push(listener);

for (const event of ["hashchange", "popstate"]) {
  addEventListener(event, () => {
    const next = parsed();
    if (location.hash === "#figures" || written(next) === written(current)) return;
    current = next;
    changed();
  });
}

// Elements, and the fields of the form. Fields and cards outlive a change, so that focus stays.

export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((each) => each !== null && each !== undefined));
  return node;
}

// Put nodes into a container in this order, without touching those that are in place.
export function arrange(container, nodes) {
  const wanted = new Set(nodes);
  [...container.childNodes].forEach((each) => wanted.has(each) || each.remove());
  nodes.forEach((each, n) => container.childNodes[n] === each || container.insertBefore(each, container.childNodes[n] ?? null));
}

const KINDS = { select, number, check, models, slider, checks };
const made = new Map();

// Show fields in a form. A field: kind, id, label, value, change(value), and what its kind needs.
export function fields(form, list) {
  const nodes = list.filter(Boolean).map((field) => {
    const signature = JSON.stringify([field.kind, field.label, field.options, field.multiple, field.marks]);
    let known = made.get(field.id);
    if (known?.signature !== signature) {
      const focused = document.activeElement?.id;
      const fresh = KINDS[field.kind](field, (value) => made.get(field.id).field.change(value));
      known?.node.replaceWith(fresh.node);
      known = { ...fresh, signature };
      made.set(field.id, known);
      if (focused && known.node.isConnected) known.node.querySelector(`#${CSS.escape(focused)}`)?.focus();
    }
    known.field = field;
    known.show(field.value);
    return known.node;
  });
  arrange(form, nodes);
}

function labelled(field, input, ...more) {
  return el("div", { class: `field ${field.kind}` }, el("label", { for: input.id }, field.label), input, ...more);
}

function select(field, changed) {
  const input = el("select", { id: field.id, onchange: () => changed(input.value) },
    ...field.options.map(([value, text]) => el("option", { value }, text)));
  return { node: labelled(field, input), show: (value) => { input.value = value; } };
}

function number(field, changed) {
  const input = el("input", { id: field.id, type: "number", min: 0, step: "any", placeholder: field.placeholder,
    onchange: () => changed(input.value) });
  return { node: labelled(field, input), show: (value) => { input.value = value ?? ""; } };
}

function check(field, changed) {
  const input = el("input", { id: field.id, type: "checkbox", onchange: () => changed(input.checked) });
  const node = el("div", { class: "field check" }, input, el("label", { for: field.id }, field.label));
  return { node, show: (value) => { input.checked = value; } };
}

function choices(field, changed, type) {
  const inputs = field.options.map(([value, text, note], n) => {
    const input = el("input", { type, name: field.id, id: `${field.id}-${n}`, value, onchange: () => changed(chosen()) });
    const row = el("div", { class: "choice" }, input,
      el("label", { for: input.id }, text, note ? el("small", {}, ` ${note}`) : null));
    return { input, row, text: `${text} ${note ?? ""}`.toLowerCase() };
  });
  const chosen = () => inputs.filter((each) => each.input.checked).map((each) => each.input.value);
  const show = (values) => inputs.forEach((each) => { each.input.checked = values.includes(each.input.value); });
  return { inputs, show };
}

function checks(field, changed) {
  const { inputs, show } = choices(field, changed, "checkbox");
  const rows = inputs.map((each) => each.row);
  return { node: el("fieldset", { class: "field" }, el("legend", {}, field.label), el("div", { class: "choices" }, ...rows)), show };
}

function models(field, changed) {
  const { inputs, show } = choices(field, changed, field.multiple ? "checkbox" : "radio");
  const filter = el("input", { type: "search", id: `${field.id}-filter`, placeholder: "Filter by name or family",
    "aria-label": "Filter the list of models",
    oninput: () => inputs.forEach((each) => { each.row.hidden = !each.text.includes(filter.value.trim().toLowerCase()); }) });
  const rows = el("div", { class: "choices" }, ...inputs.map((each) => each.row));
  const node = el("fieldset", { class: "field" }, el("legend", {}, field.label), inputs.length > 8 ? filter : null, rows);
  return { node, show };
}

function slider(field, changed) {
  const output = el("output", { for: field.id });
  const input = el("input", { id: field.id, type: "range", min: 0, max: field.marks.length - 1, step: 1,
    oninput: () => changed(Number(input.value)) });
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; button.textContent = "Play"; button.setAttribute("aria-pressed", "false"); };
  const button = el("button", { type: "button", id: `${field.id}-play`, "aria-pressed": "false", onclick: () => {
    if (timer !== null) { stop(); return; }
    button.textContent = "Stop";
    button.setAttribute("aria-pressed", "true");
    if (Number(input.value) === field.marks.length - 1) changed(0);
    timer = setInterval(() => {
      const next = Number(input.value) + 1;
      if (next >= field.marks.length || !input.isConnected) stop();
      else changed(next);
    }, 900);
  } }, "Play");
  const node = labelled(field, input, el("div", { class: "row" }, output, field.marks.length > 1 ? button : null));
  const show = (value) => {
    input.value = value;
    output.value = field.marks[value] ?? "";
    input.setAttribute("aria-valuetext", output.value);
  };
  return { node, show };
}

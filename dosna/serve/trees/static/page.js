// The page of trees: branches on the left, a histogram or a table of entries on the right.

import { Plot } from "./plot.js";

const found = (id) => document.getElementById(id);
const FIELDS = ["x", "y", "where", "xbins", "xmin", "xmax", "ybins", "ymin", "ymax"];
const MARKS = { flat: "▮", list: "≡", nested: "⣿", record: "{}", text: "a", other: "?" };
const MOST_SHOWN = 2000;
const LOST = "The server does not answer: start it again, and open the address that it prints";

let tree = null, events = null, next = null;
const plot = new Plot(found("plot"), found("hover"), zoom);

async function ask(path, parameters = {}) {
  const query = new URLSearchParams(parameters);
  const answer = await fetch(`${path}?${query}`).catch(() => { throw new Error(LOST); });
  const value = await answer.json();
  if (!answer.ok) throw new Error([value.error, value.hint].filter(Boolean).join(": "));
  return value;
}

function say(text, bad = false) {
  found("message").textContent = text;
  found("message").classList.toggle("bad", bad);
}

/** Say what failed. What was shown before is the answer to another question. */
function refuse(text) {
  found("drawing").hidden = found("listing").hidden = true;
  found("json").hidden = found("png").hidden = true;
  say(text, true);
}

function made(kind, text, name) {
  const element = document.createElement(kind);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
}

// -- trees and branches ---------------------------------------------------------------------

async function begin() {
  const asked = new URLSearchParams(location.search);
  const trees = await ask("list");
  const names = trees.map((one) => one.name);
  if (asked.has("tree") && !names.includes(asked.get("tree"))) names.unshift(asked.get("tree"));
  if (!names.length) return say("There are no trees here.");
  for (const name of names) {
    const option = made("option", name || "(the connection)");
    option.value = name;
    found("tree").append(option);
  }
  found("tree").value = asked.get("tree") ?? names[0];
  for (const name of FIELDS) found(name).value = asked.get(name) ?? "";
  found("log").checked = asked.has("log");
  await open();
  if (found("x").value) {
    const expression = tree.branches.find((one) => one.name === found("x").value)?.expression;
    if (expression) found("x").value = expression;
    draw();
  }
}

async function open() {
  tree = await ask("branches", { tree: found("tree").value });
  const count = tree.branches.length, files = tree.files > 1 ? `, ${tree.files} files` : "";
  found("about").textContent =
    `${tree.entries.toLocaleString("en")} entries, ${count} branch${count === 1 ? "" : "es"}${files}`;
  document.title = `${tree.name || "Trees"} – dosna`;
  list();
}

function list() {
  const text = found("filter").value.toLowerCase();
  const shown = tree.branches.filter((one) => one.name.toLowerCase().includes(text));
  const rows = shown.slice(0, MOST_SHOWN).flatMap((branch) => branch.fields?.length
    ? [row(branch, null), ...branch.fields.map((field) => row(branch, field))]
    : [row(branch, null)]);
  found("branches").replaceChildren(...rows);
  if (shown.length > MOST_SHOWN) found("branches").append(made("li", `${shown.length - MOST_SHOWN} more`));
  const names = shown.slice(0, MOST_SHOWN).map((one) => {
    const option = made("option");
    option.value = one.expression;
    return option;
  });
  found("names").replaceChildren(...names);
}

function row(branch, field) {
  const item = made("li"), button = made("button", undefined, "name");
  const { expression, kind } = field ?? branch;
  const countable = ["flat", "list", "nested"].includes(kind);
  button.type = "button";
  button.disabled = !countable;
  button.title = [branch.title, branch.typename, branch.type].filter(Boolean).join("\n");
  button.append(
    made("span", field ? "" : MARKS[kind], "mark"),
    made("span", field ? `.${field.name}` : branch.name, "label"),
    made("span", field ? "" : branch.type, "type"),
  );
  button.addEventListener("click", () => choose(expression, ""));
  item.dataset.expression = expression;
  item.append(button);
  if (countable) {
    const second = made("button", "as y", "second");
    second.type = "button";
    second.title = "Draw over the branch that is on x";
    second.addEventListener("click", () => choose(found("x").value || expression, expression));
    item.append(second);
  }
  return item;
}

function choose(x, y) {
  for (const name of ["xbins", "xmin", "xmax", "ybins", "ymin", "ymax"]) found(name).value = "";
  found("x").value = x;
  found("y").value = y;
  draw();
}

// -- histograms -----------------------------------------------------------------------------

function asked() {
  const parameters = { tree: found("tree").value };
  for (const name of FIELDS) {
    const value = found(name).value.trim();
    if (value && (found("y").value.trim() || !name.startsWith("y"))) parameters[name] = value;
  }
  return parameters;
}

function draw() {
  stop();
  const parameters = asked();
  found("asked").classList.toggle("pair", Boolean(parameters.y));
  for (const item of found("branches").children) {
    const { expression } = item.dataset;
    item.classList.toggle("chosen", expression === parameters.x || expression === parameters.y);
  }
  if (!parameters.x) return say("Choose a branch.");
  remember(parameters);
  busy(true);
  say("Filling the histogram …");
  events = new EventSource(`histogram?${new URLSearchParams({ ...parameters, stream: 1 })}`);
  events.addEventListener("progress", (event) => {
    const [done, total] = JSON.parse(event.data);
    found("progress").value = total ? done / total : 1;
  });
  events.addEventListener("histogram", (event) => {
    stop();
    show(JSON.parse(event.data), parameters);
  });
  events.addEventListener("refusal", (event) => {
    const { error, hint } = JSON.parse(event.data);
    stop();
    refuse([error, hint].filter(Boolean).join(": "));
  });
  events.onerror = async () => {
    stop();
    // An event source does not tell why: the same request without one does.
    try { show(await ask("histogram", parameters), parameters); } catch (error) { refuse(error.message); }
  };
}

function show(histogram, parameters) {
  const { entries, selected } = histogram.metadata, all = tree.entries;
  const chosen = parameters.where ? ` from ${selected.toLocaleString("en")} of ${all.toLocaleString("en")} entries` : "";
  say(`${entries.toLocaleString("en")} ${parameters.y ? "pairs" : "values"}${chosen}`);
  found("listing").hidden = true;
  found("drawing").hidden = false;
  plot.show(histogram, found("log").checked);
  for (const [id, path] of [["json", "histogram"], ["png", "histogram.png"]]) {
    const more = id === "png" && found("log").checked ? { log: 1 } : {};
    found(id).href = `${path}?${new URLSearchParams({ ...parameters, ...more })}`;
    found(id).hidden = false;
  }
}

function zoom(limits) {
  ["x", "y"].forEach((name, n) => {
    const range = limits?.[n];
    found(`${name}min`).value = range ? Number(range[0].toPrecision(8)) : "";
    found(`${name}max`).value = range ? Number(range[1].toPrecision(8)) : "";
  });
  draw();
}

function stop() {
  events?.close();
  events = null;
  busy(false);
}

function busy(is) {
  found("progress").classList.toggle("busy", is);
  found("progress").value = 0;
  found("stop").hidden = !is;
}

function remember(parameters) {
  const kept = new URLSearchParams(parameters);
  if (found("log").checked) kept.set("log", "1");
  history.replaceState(null, "", `?${kept}`);
}

// -- entries --------------------------------------------------------------------------------

async function entries(start) {
  stop();
  const parameters = { tree: found("tree").value, where: found("where").value, start };
  const columns = ["x", "y"].map((name) => found(name).value.trim()).filter(Boolean);
  const others = tree.branches.map((one) => one.expression).filter((one) => !columns.includes(one));
  parameters.columns = [...columns, ...others.slice(0, 12 - columns.length)].join(", ");
  try {
    const table = await ask("entries", parameters);
    const head = made("tr");
    head.append(...table.columns.map((name) => made("th", name)));
    found("head").replaceChildren(head);
    found("rows").replaceChildren(...table.rows.map((values) => {
      const line = made("tr");
      line.append(...values.map((value) => cell(value)));
      return line;
    }));
    next = table.next;
    found("next").disabled = next === null;
    const last = (next ?? tree.entries) - 1, some = table.rows.length;
    found("range").textContent = `${some} of the entries ${start} to ${Math.max(start, last)}`;
    say("");
    found("drawing").hidden = true;
    found("listing").hidden = false;
  } catch (error) { refuse(error.message); }
}

function cell(value) {
  const shown = typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(7)) : value;
  const text = typeof shown === "string" ? shown : JSON.stringify(shown, (_, one) =>
    typeof one === "number" && !Number.isInteger(one) ? Number(one.toPrecision(6)) : one);
  const element = made("td", text);
  element.title = text;
  return element;
}

// -- events ---------------------------------------------------------------------------------

const safely = (work) => (...given) => Promise.resolve(work(...given)).catch((error) => refuse(error.message));

found("asked").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
found("tree").addEventListener("change", safely(async () => {
  for (const name of FIELDS) found(name).value = "";
  found("drawing").hidden = found("listing").hidden = true;
  stop();
  say("Choose a branch.");
  await open();
}));
found("filter").addEventListener("input", list);
found("log").addEventListener("change", () => {
  if (plot.histogram && !found("drawing").hidden) {
    const parameters = asked();
    remember(parameters);
    show(plot.histogram, parameters);
  }
});
found("stop").addEventListener("click", () => { stop(); say("Stopped."); });
found("show").addEventListener("click", safely(() => entries(0)));
found("first").addEventListener("click", safely(() => entries(0)));
found("next").addEventListener("click", safely(() => entries(next)));
safely(begin)();

"use strict";
{
const data = JSON.parse(document.getElementById("data").textContent);
const $ = selector => document.querySelector(selector);
const make = (tag, text = "", name = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
};
const STATUSES = ["passed", "rounding", "wrong", "refused", "failed", "crashed", "timeout", "memory"];
const changes = new Map();
for (const change of data.changes) changes.set(change.case, [...(changes.get(change.case) ?? []), change]);
const milliseconds = part => record => (record.latency?.[part] ? record.latency[part].median * 1000 : null);
const round = digits => value => (value === null || value === undefined ? "" : value.toFixed(digits));
const whole = value => (value === null || value === undefined ? "" : value.toLocaleString("en"));

const COLUMNS = [
  { head: "case", of: record => record.case },
  { head: "status", of: record => STATUSES.indexOf(record.status) },
  { head: "stage", of: record => (record.status === "passed" ? "" : record.stage) },
  { head: "change", of: record => (changes.get(record.case) ?? []).map(each => each.kind).join(", "), hide: !data.changes.length },
  { head: "opset", of: record => record.opset ?? null, show: whole, number: true },
  { head: "nodes", of: record => record.nodes ?? null, show: whole, number: true },
  { head: "MiB", of: record => (record.bytes === undefined ? null : record.bytes / 2 ** 20), show: round(2), number: true },
  { head: "shapes", of: record => record.shapes?.length ?? null, show: whole, number: true },
  { head: "max abs", of: record => record.max_abs ?? null, show: value => (value === null ? "" : Number(value).toExponential(1)), number: true },
  { head: "onnxruntime ms", of: milliseconds("onnxruntime"), show: round(3), number: true },
  { head: "torch ms", of: milliseconds("torch"), show: round(3), number: true },
  { head: "seconds", of: record => record.seconds ?? null, show: round(1), number: true },
  { head: "peak MiB", of: record => (record.peak ? record.peak / 2 ** 20 : null), show: round(0), number: true },
].filter(column => !column.hide);

const state = { text: "", statuses: new Set(), stage: "", change: "", column: 1, down: true, open: new Set() };

function texts(record) {
  const operators = Object.keys(record.operators ?? {}).concat(record.operators_refused ?? []);
  return [record.case, record.message, record.settings.runtime, record.settings.dtype, ...operators].join("\n").toLowerCase();
}
const searched = new Map(data.cases.map(record => [record, texts(record)]));

function fits(record) {
  const kinds = (changes.get(record.case) ?? []).map(each => each.kind);
  return (
    (!state.statuses.size || state.statuses.has(record.status)) &&
    (!state.stage || (record.status !== "passed" && record.stage === state.stage)) &&
    (!state.change || kinds.includes(state.change) || (state.change === "worse" && kinds.some(kind => data.kinds[kind].worse))) &&
    state.text.toLowerCase().split(/\s+/).every(word => searched.get(record).includes(word))
  );
}

function compare(first, second) {
  const of = COLUMNS[state.column].of, a = of(first), b = of(second), sign = state.down ? -1 : 1;
  const empty = value => value === null || value === "";
  if (empty(a) || empty(b)) return Number(empty(a)) - Number(empty(b)) || first.case.localeCompare(second.case);
  const order = typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return sign * order || first.case.localeCompare(second.case, "en", { numeric: true });
}

function row(record) {
  const line = document.createElement("tr");
  line.dataset.case = record.case;
  for (const column of COLUMNS) {
    const cell = make("td", "", column.number ? "number" : column.head);
    const value = column.of(record);
    if (column.head === "case") {
      const name = make("button", record.case);
      name.type = "button";
      name.setAttribute("aria-expanded", String(state.open.has(record.case)));
      name.addEventListener("click", () => toggle(record.case));
      cell.append(name);
    } else if (column.head === "status") {
      cell.textContent = record.status;
      cell.classList.add(record.status);
    } else {
      cell.textContent = column.show ? column.show(value) : value;
      if (column.head === "change" && value.split(", ").some(kind => data.kinds[kind]?.worse)) cell.classList.add("worse");
    }
    line.append(cell);
  }
  return line;
}

function toggle(name) {
  if (!state.open.delete(name)) state.open.add(name);
  draw();
}

function entry(list, name, value, verbatim = false) {
  if (value === undefined || value === null || value === "") return;
  const cell = document.createElement("dd");
  cell.append(verbatim ? make("pre", value) : value);
  list.append(make("dt", name), cell);
}

function details(record) {
  const line = make("tr", "", "details"), cell = document.createElement("td"), list = document.createElement("dl");
  cell.colSpan = COLUMNS.length;
  for (const change of changes.get(record.case) ?? []) {
    entry(list, change.kind, `${change.before || "nothing"} → ${change.after || "nothing"} (${data.kinds[change.kind].meaning})`);
  }
  entry(list, "message", record.message, true);
  entry(list, "comparison", record.table, true);
  entry(list, "stages", Object.entries(record.stages ?? {}).map(([name, seconds]) => `${name} ${seconds.toFixed(2)} s`).join(", "));
  entry(list, "compared at", (record.shapes ?? []).join("; ") + (record.verified === "before" ? " (the same bytes were verified before)" : ""));
  entry(list, "torch doesn't run at", Object.entries(record.skipped ?? {}).map(pair => pair.join(": ")).join("; "));
  entry(list, "inputs", Object.entries(record.inputs ?? {}).map(pair => pair.join(": ")).join("; "));
  entry(list, "operators", Object.entries(record.operators ?? {}).map(([name, count]) => `${count} ${name}`).join(", "));
  entry(list, "refused", (record.operators_refused ?? []).join(", "));
  const options = Object.entries({ ...record.settings.options, ...record.settings.verify });
  entry(list, "options", options.map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join(", "));
  entry(list, "runtime", record.settings.runtime);
  entry(list, "machine", record.node);
  entry(list, "attempts", record.attempts > 1 ? String(record.attempts) : "");
  entry(list, "digest", record.digest);
  entry(list, "trace", record.trace, true);
  entry(list, "output", record.output, true);
  cell.append(list);
  line.append(cell);
  return line;
}

function draw() {
  const shown = data.cases.filter(fits).sort(compare);
  const lines = shown.flatMap(record => (state.open.has(record.case) ? [row(record), details(record)] : [row(record)]));
  $("#rows").replaceChildren(...lines);
  $("#none").hidden = shown.length > 0;
  $("#count").textContent = `${shown.length} of ${data.cases.length} cases`;
  document.querySelectorAll("#heads th").forEach((head, number) => {
    head.setAttribute("aria-sort", number !== state.column ? "none" : state.down ? "descending" : "ascending");
  });
  document.querySelectorAll("#statuses button").forEach(button => {
    button.setAttribute("aria-pressed", String(state.statuses.has(button.dataset.status)));
  });
}

function options(select, all, values) {
  select.append(new Option(all, ""), ...values.map(value => new Option(value, value)));
  select.hidden = !values.length;
}

function start() {
  const { name, zoo, versions } = data.run;
  $("h1").textContent = name;
  const missing = data.missing.length ? `${data.missing.length} cases have no result yet · ` : "";
  $("#facts").textContent = `${missing}${zoo} · ` + Object.entries(versions).map(pair => pair.join(" ")).join(" · ");
  COLUMNS.forEach((column, number) => {
    const head = make("th", "", column.number ? "number" : ""), button = make("button", column.head);
    button.type = "button";
    button.addEventListener("click", () => {
      state.down = state.column === number ? !state.down : Boolean(column.number);
      state.column = number;
      draw();
    });
    head.append(button);
    $("#heads").append(head);
  });
  for (const status of STATUSES) {
    const count = data.cases.filter(record => record.status === status).length;
    if (!count) continue;
    const button = make("button", `${status} ${count}`, `status ${status}`);
    button.type = "button";
    button.dataset.status = status;
    button.addEventListener("click", () => {
      if (!state.statuses.delete(status)) state.statuses.add(status);
      draw();
    });
    $("#statuses").append(button);
  }
  const failed = data.cases.filter(record => record.status !== "passed");
  options($("#stage"), "all stages", [...new Set(failed.map(record => record.stage).filter(Boolean))].sort());
  const kinds = [...new Set(data.changes.map(change => change.kind))];
  options($("#change"), "all changes", kinds.some(kind => data.kinds[kind].worse) ? ["worse", ...kinds] : kinds);
  $("#search").addEventListener("input", event => { state.text = event.target.value; draw(); });
  $("#stage").addEventListener("change", event => { state.stage = event.target.value; draw(); });
  $("#change").addEventListener("change", event => { state.change = event.target.value; draw(); });
  $("#filters").addEventListener("submit", event => event.preventDefault());
  draw();
  document.documentElement.dataset.ready = "true";
}

try {
  start();
} catch (error) {
  document.documentElement.dataset.failed = String(error.stack);
  throw error;
}
}

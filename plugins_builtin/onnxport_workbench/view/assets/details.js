// What is selected: all about a node or a group; and the source lines that made the nodes of a group.

function heading(text, ...rest) {
  return el("h3", {}, text, ...rest);
}

function table(head, rows, kind = "") {
  const body = rows.map(row => el("tr", {}, ...row.map(cell => el("td", {}, ...(Array.isArray(cell) ? cell : [cell])))));
  const top = head ? [el("thead", {}, el("tr", {}, ...head.map(cell => el("th", { scope: "col" }, cell))))] : [];
  return el("table", { class: kind }, ...top, el("tbody", {}, ...body));
}

function pairs(rows) {
  return el("dl", {}, ...rows.filter(([, value]) => value !== "" && value !== null).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, ...(Array.isArray(value) ? value : [value]))]));
}

class DetailsPane {
  constructor(app) {
    this.app = app;
    this.element = document.getElementById("details");
    this.source = document.getElementById("source");
  }

  draw(key) {
    const { model } = this.app, id = Number(key.slice(1));
    const content = key[0] === "n" ? this.node(model.nodes[id]) : this.group(model.groups[id]);
    this.element.replaceChildren(...content.filter(Boolean));
    this.element.scrollTop = 0;
    this.drawSource(key);
  }

  link(key, text) {
    return el("button", { type: "button", class: "link", onclick: () => this.app.select(key, "details") }, text);
  }

  path(group) {
    const { model } = this.app;
    return chainOf(model, group).flatMap((each, i) => [i ? " / " : "", this.link(`g${each}`, model.groups[each].name)]);
  }

  node(node) {
    const { model } = this.app, last = node.place;
    const content = [
      el("h2", {}, el("span", { class: `dot k-${kindOf(node.op)}` }), node.op),
      this.wrong(node), this.changes(node),
      pairs([
        ["name", node.name], ["module", this.path(node.group)], ["torch operator", node.torch && [el("code", {}, node.torch)]],
        ["FX node", node.fx], ["translation", node.translation && [el("code", {}, node.translation)]], ["plugin", node.plugin],
        ["source", last ? [el("span", { class: "place" }, `${last.file}:${last.line}`), el("code", { class: "line" }, last.code)] : ""],
        ["latency", node.us ? timeText(node.us) : ""],
        ["function", node.call >= 0 ? [this.link(`g${node.call}`, model.groups[node.call].name)] : ""],
        ["body", node.bodies.length ? node.bodies.flatMap(body => [this.link(`g${body}`, model.groups[body].name), " "]) : ""],
      ]),
      heading("Inputs"), this.values(node.inputs, value => value.bytes >= 0 ? [bytesText(value.bytes)] : this.makers(value)),
      heading("Outputs"), this.values(node.outputs, value => this.users(value)),
    ];
    if (node.attributes.length) content.push(heading("Attributes"), table(null, node.attributes.map(([name, text]) => [name, [el("code", {}, text)]])));
    if (node.trace.length > 1) {
      content.push(el("details", {}, el("summary", {}, `Call stack, ${node.trace.length} frames`), el("ol", { class: "stack" },
        ...node.trace.map(frame => el("li", {}, el("span", { class: "place" }, `${frame.file}:${frame.line} in ${frame.inside}`), el("code", { class: "line" }, frame.code))))));
    }
    return content;
  }

  wrong(node) {
    const found = node.isWrong ? this.app.model.about.mismatch.mismatch : null;
    if (!found) return null;
    const difference = found.difference;
    return el("div", { class: "card wrong" }, el("strong", {}, "The first value that departs from torch"), pairs([
      ["problem", difference.problem], ["max abs", Number(difference.max_abs).toExponential(2)], ["max rel", Number(difference.max_rel).toExponential(2)],
      ["it starts", found.starts_here ? "here: torch gives another result for the same inputs" : "before: this amplifies a difference of its inputs"],
    ]));
  }

  changes(node) {
    if (!node.status) return null;
    return el("div", { class: `card ${node.status}` }, el("strong", {}, { added: "Added", removed: "Removed", changed: "Changed" }[node.status]),
      node.changes.length ? el("ul", {}, ...node.changes.map(text => el("li", {}, text))) : null);
  }

  values(list, more) {
    const { model } = this.app;
    if (!list.length) return el("p", { class: "none" }, "None.");
    return el("ul", { class: "values" }, ...list.map(id => {
      if (id < 0) return el("li", { class: "none" }, "left out");
      const value = model.values[id];
      return el("li", {}, el("code", { class: "type" }, ...this.dims(value.type || "type unknown")), " ", el("span", { class: "valuename" }, value.name), el("div", { class: "from" }, ...more(value)));
    }));
  }

  // The type with its dynamic dimensions marked.
  dims(type) {
    const open = type.indexOf("[");
    if (open < 0) return [type];
    return [type.slice(0, open + 1), ...type.slice(open + 1, -1).split(", ").flatMap((dim, i) => [i ? ", " : "", /^\d*$/.test(dim) ? dim : el("b", { class: "dim" }, dim)]), "]"];
  }

  makers(value) {
    const { model } = this.app;
    if (value.producer < 0) return [value.home === 0 ? "input of the model" : "input of its graph"];
    const node = model.nodes[value.producer];
    return ["from ", this.link(`n${node.id}`, `${node.op} ${node.name}`)];
  }

  users(value) {
    const { model } = this.app, users = value.consumers.slice(0, 6).flatMap(id => [this.link(`n${id}`, `${model.nodes[id].op} ${model.nodes[id].name}`), " "]);
    const more = value.consumers.length > 6 ? [`and ${value.consumers.length - 6} more`] : [];
    return [...(model.outputs.has(value.id) ? ["output of the model "] : []), ...(users.length ? ["to ", ...users, ...more] : [])];
  }

  group(group) {
    const { model } = this.app, ops = new Map(), repeat = group.repeat;
    for (const id of group.all) ops.set(model.nodes[id].op, (ops.get(model.nodes[id].op) ?? 0) + 1);
    const counts = [...ops].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    const isModel = group.id === 0;
    return [
      el("h2", {}, group.name, repeat ? el("span", { class: "times" }, `one of ${repeat.members.length} alike`) : null),
      pairs([
        ["kind", group.kind === "module" ? "" : group.kind], ["class", group.type && [el("code", {}, group.type)]], ["path", group.path && !isModel ? group.path : ""],
        ["nodes", `${(group.all.length - group.status.removed).toLocaleString("en")}${group.status.removed ? ` and ${group.status.removed} removed` : ""}`], ["weights", group.bytes ? bytesText(group.bytes) : ""], ["latency", model.hasLatency ? timeText(group.us) : ""],
      ]),
      repeat ? this.members(repeat) : null,
      ...(isModel ? this.overview() : []),
      heading("Operators"),
      table(null, counts.map(([op, count]) => [[el("span", { class: `dot k-${kindOf(op)}` }), op], [el("button", { type: "button", class: "link", title: "Search for these nodes", onclick: () => this.app.search.run(isModel ? op : `${op} ${group.path}`) }, String(count))]]), "counts"),
      ...this.slowest(group), ...this.heaviest(group),
    ];
  }

  members(repeat) {
    const choice = el("select", { "aria-label": "Which one is shown", onchange: event => this.app.choose(repeat, Number(event.target.value)) },
      ...repeat.members.map((id, i) => el("option", { value: i, selected: i === repeat.shown }, this.app.model.groups[id].path || this.app.model.groups[id].name)));
    return el("p", {}, "Shown: ", choice);
  }

  overview() {
    const { model } = this.app, about = model.about;
    const content = [];
    if (about.mismatch) content.push(this.mismatch(about.mismatch));
    if (about.before) content.push(...this.comparison(about.before));
    const row = id => [model.values[id].name, [el("code", { class: "type" }, ...this.dims(model.values[id].type))]];
    content.push(heading("Inputs"), table(null, model.inputs.map(row)), heading("Outputs"), table(null, [...model.outputs].map(row)));
    if (about.verification) content.push(...this.verification(about.verification));
    return content;
  }

  mismatch(result) {
    const wrong = result.mismatch;
    if (!wrong) return el("div", { class: `card ${result.passed ? "fine" : "wrong"}` }, result.passed ? `No mismatch: ${result.compared} of ${result.comparable} values were compared.` : "All values inside the graph agree, but the outputs don't.");
    const node = this.app.model.wrong;
    return el("div", { class: "card wrong" }, el("strong", {}, "The first wrong value: "), node ? this.link(`n${node.id}`, `${wrong.onnx_operator} ${wrong.value}`) : `${wrong.onnx_operator} ${wrong.value}`,
      el("p", {}, `${wrong.operator} in ${wrong.module || "the root"}: ${wrong.difference.problem}`));
  }

  comparison(before) {
    const { model } = this.app, found = model.groups[0].status, button = name => found[name] ? el("button", { type: "button", class: `link ${name}`, onclick: () => this.app.search.run(`is:${name}`) }, `${found[name]} ${name}`) : `0 ${name}`;
    const whole = { added: 0, removed: 0, changed: 0 };
    const rows = new Map();
    for (const node of model.nodes) {
      if (!node.status) continue;
      if (!rows.has(node.group)) rows.set(node.group, { ...whole });
      rows.get(node.group)[node.status] += 1;
    }
    const list = [...rows].slice(0, 60).map(([id, counts]) => [[this.link(`g${id}`, model.groups[id].path || model.groups[id].name)], `+${counts.added}`, `−${counts.removed}`, `~${counts.changed}`]);
    for (const group of model.groups) if (group.kind === "function") for (const name of Object.keys(found)) whole[name] += group.status[name];
    const inside = Object.values(whole).some(Boolean) ? el("p", {}, `In functions: ${whole.added} added, ${whole.removed} removed, ${whole.changed} changed`) : null;
    return [heading(`Compared with ${before}`), el("p", {}, button("added"), ", ", button("removed"), ", ", button("changed"), " (weights by type, not by value)"), inside,
      list.length ? table(["module", "added", "removed", "changed"], list, "deltas") : el("p", { class: "none" }, "No differences.")].filter(Boolean);
  }

  verification(result) {
    const rows = [];
    for (const one of result.comparisons) {
      if (one.skipped || one.error) rows.push([one.label, "", "", "", one.skipped ? `not run: ${one.skipped}` : `failed: ${one.error}`]);
      for (const out of one.outputs) rows.push([one.label, out.name, Number(out.max_abs).toExponential(2), Number(out.max_rel).toExponential(2), out.problem ? `failed: ${out.problem}` : "ok"]);
    }
    return [heading("Verification ", el("span", { class: `state ${result.passed ? "fine" : "wrong"}` }, result.passed ? "passed" : "failed")),
      result.checker ? el("p", { class: "card wrong" }, `onnx.checker: ${result.checker}`) : null,
      el("div", { class: "wide" }, table(["inputs", "output", "max abs", "max rel", "result"], rows))];
  }

  slowest(group) {
    const { model } = this.app;
    if (!model.hasLatency) return [];
    const nodes = group.all.map(id => model.nodes[id]).filter(node => node.us).sort((a, b) => b.us - a.us).slice(0, 12);
    const rest = group.id === 0 && model.about.unmatched ? el("p", { class: "none" }, `${timeText(model.about.unmatched)} are of nodes that only the runtime has.`) : null;
    return nodes.length ? [heading("Slowest nodes"), table(null, nodes.map(node => [[this.link(`n${node.id}`, `${node.op} ${node.name}`)], timeText(node.us)])), rest] : [rest];
  }

  heaviest(group) {
    const { model } = this.app, seen = new Set();
    for (const id of group.all) for (const input of model.nodes[id].inputs) if (input >= 0 && model.values[input].bytes > 0) seen.add(input);
    const values = [...seen].map(id => model.values[id]).sort((a, b) => b.bytes - a.bytes).slice(0, 12);
    return values.length ? [heading("Largest weights"), table(null, values.map(value => [[this.link(`n${value.consumers[0]}`, value.name), el("div", {}, el("code", { class: "type" }, value.type))], bytesText(value.bytes)]))] : [];
  }

  // The lines that made the nodes of the selected group, or of the node's group; those of the selection are marked.
  drawSource(key) {
    const { model } = this.app, node = key[0] === "n" ? model.nodes[Number(key.slice(1))] : null;
    const group = model.groups[node ? node.group : Number(key.slice(1))], files = new Map();
    for (const id of group.all) {
      const last = model.nodes[id].place;
      if (!last) continue;
      if (!files.has(last.file)) files.set(last.file, new Map());
      const lines = files.get(last.file);
      if (!lines.has(last.line)) lines.set(last.line, { ...last, count: 0 });
      lines.get(last.line).count += 1;
    }
    const mine = node?.place;
    const content = [el("h3", {}, "Source", el("span", { class: "kind" }, group.path || group.name))];
    for (const [file, lines] of files) {
      content.push(el("div", { class: "file" }, file), el("div", { class: "code" }, ...[...lines.values()].sort((a, b) => a.line - b.line).map(line =>
        el("button", { type: "button", class: `sourceline${mine && mine.file === file && mine.line === line.line ? " current" : ""}`, title: `Search for the nodes of ${file}:${line.line}`, onclick: () => this.app.search.run(`${file}:${line.line}`) },
          el("span", { class: "number" }, String(line.line)), el("code", {}, line.code), el("span", { class: "size" }, String(line.count))))));
    }
    if (!files.size) content.push(el("p", { class: "none" }, "The file doesn't tell source lines."));
    this.source.replaceChildren(...content);
    this.source.querySelector(".current")?.scrollIntoView({ block: "nearest" });
  }
}

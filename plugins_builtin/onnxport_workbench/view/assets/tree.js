// The tree of modules and nodes, and the search: both are lists of rows that the keyboard moves through.

function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

class TreePane {
  constructor(app, element) {
    this.app = app;
    this.element = element;
    this.open = new Set([0]);
    this.current = "g0";
    element.addEventListener("keydown", event => this.key(event));
  }

  // Rows as they are shown: {key, level, group | node, isOpen}
  rows() {
    const { model } = this.app, rows = [];
    const add = (item, level) => {
      const isOpen = Boolean(item.group) && this.open.has(item.group.id);
      rows.push({ ...item, level, isOpen });
      if (isOpen) for (const child of itemsOf(model, item.group.id)) add(child, level + 1);
    };
    add({ key: "g0", group: model.groups[0] }, 1);
    for (const group of model.groups) if (group.kind === "function" && group.all.length) add({ key: `g${group.id}`, group }, 1);
    return rows;
  }

  draw() {
    const { model } = this.app;
    this.shown = this.rows();
    if (!this.shown.some(row => row.key === this.current)) this.current = "g0";
    this.element.replaceChildren(...this.shown.map(row => {
      const subject = row.group ?? row.node, marks = subject.isWrong ? " wrong" : "";
      const status = row.node ? row.node.status : "";
      const attributes = {
        role: "treeitem", "aria-level": row.level, "aria-selected": String(row.key === this.current), "data-key": row.key,
        "aria-expanded": row.group ? String(row.isOpen) : null, tabindex: row.key === this.current ? "0" : "-1",
        class: `row ${row.group ? row.group.kind : "leaf"}${marks} ${status}`, style: `--level:${row.level - 1}`,
        onclick: event => {
          if (event.target.classList.contains("twist")) this.toggle(row);
          else this.app.select(row.key, "tree");
        },
        ondblclick: () => row.group && this.toggle(row),
      };
      const element = el("div", attributes, el("span", { class: "twist", "aria-hidden": "true" }, row.group ? (row.isOpen ? "▾" : "▸") : ""));
      if (row.group) {
        element.append(el("span", { class: "label" }, labelOf(model, row.group)));
        if (row.group.repeat) element.append(el("span", { class: "times" }, `× ${row.group.repeat.members.length}`));
        element.append(el("span", { class: "kind" }, row.group.kind === "module" ? shortClass(row.group.type) : row.group.kind));
        element.append(...statusCounts(statusOf(model, row.group)), el("span", { class: "size" }, this.sizeText(row.group)));
      } else {
        element.append(el("span", { class: `dot k-${kindOf(row.node.op)}` }), el("span", { class: "label" }, row.node.op), el("span", { class: "kind" }, row.node.name));
        if (model.hasLatency && row.node.us) element.append(el("span", { class: "size" }, timeText(row.node.us)));
      }
      if (subject.isWrong) element.append(el("span", { class: "flag", title: "The first wrong value is here" }, "✗"));
      return element;
    }));
  }

  sizeText(group) {
    const count = group.repeat ? group.repeat.members.length : 1;
    if (this.app.model.hasLatency) return group.us ? timeText(group.us * count) : "";
    return group.bytes ? bytesText(group.bytes * count) : "";
  }

  toggle(row) {
    if (this.open.has(row.group.id)) this.open.delete(row.group.id);
    else this.open.add(row.group.id);
    this.draw();
  }

  mark(key, focus) {
    this.current = key;
    let found = null;
    for (const row of this.element.children) {
      const isCurrent = row.dataset.key === key;
      row.setAttribute("aria-selected", String(isCurrent));
      row.tabIndex = isCurrent ? 0 : -1;
      if (isCurrent) found = row;
    }
    found?.scrollIntoView({ block: "nearest" });
    if (focus) found?.focus({ preventScroll: true });
  }

  // Open the rows around an item.
  reveal(group) {
    for (const each of chainOf(this.app.model, group)) this.open.add(each);
    this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.shown.findIndex(row => row.key === this.current), row = this.shown[at];
    const go = index => { const next = this.shown[Math.max(0, Math.min(index, this.shown.length - 1))]; this.app.select(next.key, "keys"); };
    const actions = {
      ArrowDown: () => go(at + 1),
      ArrowUp: () => go(at - 1),
      Home: () => go(0),
      End: () => go(this.shown.length - 1),
      PageDown: () => go(at + 15),
      PageUp: () => go(at - 15),
      ArrowRight: () => { if (row.group && !row.isOpen) this.toggle(row); else if (row.group) go(at + 1); this.focus(); },
      ArrowLeft: () => {
        if (row.group && row.isOpen) this.toggle(row);
        else for (let i = at - 1; i >= 0; i -= 1) if (this.shown[i].level < row.level) { go(i); break; }
        this.focus();
      },
      Enter: () => { if (row.group) this.app.toggle(row.group.id); else this.app.select(row.key, "tree"); this.focus(); },
      " ": () => { this.app.select(row.key, "tree"); this.focus(); },
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }

  focus() {
    this.mark(this.current, true);
  }
}

function statusCounts(status) {
  const signs = [["added", "+"], ["removed", "−"], ["changed", "~"]];
  return signs.filter(([name]) => status[name]).map(([name, sign]) => el("span", { class: `delta ${name}`, title: `${status[name]} ${name}` }, `${sign}${status[name]}`));
}

const MOST_RESULTS = 300;

class SearchPane {
  constructor(app) {
    this.app = app;
    this.input = document.getElementById("search");
    this.found = document.getElementById("found");
    this.list = document.getElementById("results");
    this.at = -1;
    this.input.addEventListener("input", () => this.run());
    this.input.addEventListener("keydown", event => this.key(event));
  }

  // What each node is found by, in lower case; made at the first search.
  texts() {
    const { nodes, groups, values } = this.app.model;
    this.haystack ??= nodes.map(node => {
      const last = node.place, group = groups[node.group];
      return [node.op, node.name, node.torch, node.fx, group.path, group.type, group.name, node.translation, node.plugin,
        node.status && `is:${node.status}`, node.isWrong ? "is:wrong" : "", last ? `${last.file}:${last.line} ${last.code}` : "",
        ...node.outputs.map(value => values[value].name), ...node.inputs.map(value => value >= 0 && values[value].bytes >= 0 ? values[value].name : ""),
      ].join("\n").toLowerCase();
    });
    return this.haystack;
  }

  run(query = this.input.value) {
    this.input.value = query;
    const words = query.toLowerCase().split(/\s+/).filter(Boolean), isActive = words.length > 0;
    this.list.hidden = !isActive;
    this.app.tree.element.hidden = isActive;
    this.found.textContent = "";
    this.list.replaceChildren();
    this.at = -1;
    if (!isActive) return;
    const texts = this.texts();
    const hits = this.app.model.nodes.filter(node => words.every(word => texts[node.id].includes(word)));
    this.found.textContent = `${countText(hits.length)}${hits.length > MOST_RESULTS ? `, the first ${MOST_RESULTS} are listed` : ""}`;
    this.list.append(...hits.slice(0, MOST_RESULTS).map((node, index) => {
      const row = el("div", { role: "option", id: `hit${index}`, class: `row leaf ${node.status}${node.isWrong ? " wrong" : ""}`, "data-key": `n${node.id}`, "aria-selected": "false", onclick: () => { this.mark(index); this.app.select(`n${node.id}`, "search"); } },
        el("span", { class: `dot k-${kindOf(node.op)}` }), el("span", { class: "label" }, node.op), el("span", { class: "kind" }, node.name),
        el("span", { class: "where" }, this.app.model.groups[node.group].path || this.app.model.groups[node.group].name));
      return row;
    }));
  }

  mark(index) {
    this.at = index;
    [...this.list.children].forEach((row, i) => row.setAttribute("aria-selected", String(i === index)));
    const row = this.list.children[index];
    this.input.setAttribute("aria-activedescendant", row ? row.id : "");
    row?.scrollIntoView({ block: "nearest" });
    return row;
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.list.children.length) {
      event.preventDefault();
      const row = this.mark(Math.max(0, Math.min(this.at + step, this.list.children.length - 1)));
      this.app.select(row.dataset.key, "search");
    } else if (event.key === "Enter" && this.list.children.length) {
      event.preventDefault();
      const row = this.mark(Math.max(this.at, 0));
      this.app.select(row.dataset.key, "search");
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      this.clear();
    }
  }

  clear() {
    this.run("");
    this.app.tree.reveal(this.app.groupOf(this.app.selected));
    this.app.tree.mark(this.app.selected, true);
  }
}

// The page: what is selected and open, and the keys that hold everywhere.

const MOST_SHOWN = 700, FEW = 60;

class App {
  constructor(model) {
    this.model = model;
    this.root = 0;
    this.selected = "g0";
    this.open = new Set();
    this.tree = new TreePane(this, document.getElementById("tree"));
    this.graph = new GraphPane(this, document.getElementById("canvas"));
    this.details = new DetailsPane(this);
    this.search = new SearchPane(this);
    this.drawHead();
    this.openFew();
    this.tree.draw();
    this.redraw();
    if (this.graph.fit() < 0.5 && this.open.size) {
      this.open.clear();
      this.redraw();
      this.graph.fit();
    }
    this.details.draw(this.selected);
    this.tree.mark(this.selected);
    this.listen();
    if (model.wrong) this.select(`n${model.wrong.id}`, "start");
  }

  drawHead() {
    const about = this.model.about;
    document.getElementById("title").textContent = about.before ? `${about.before} → ${about.name}` : about.name;
    const chips = about.facts.map(([name, text]) => el("li", { title: `${name}: ${text}` }, el("span", {}, name), " ", text));
    if (about.verification) chips.push(el("li", { class: about.verification.passed ? "fine" : "wrong" }, `verification ${about.verification.passed ? "passed" : "failed"}`));
    if (about.mismatch) chips.push(el("li", { class: about.mismatch.passed ? "fine" : "wrong" }, about.mismatch.passed ? "no mismatch" : "mismatch"));
    document.getElementById("facts").replaceChildren(...chips);
    const kinds = [...KINDS.map(([kind, text]) => [kind, text]), ["math", "arithmetic, others"]];
    const states = about.before ? ["added", "removed", "changed"] : this.model.wrong ? ["wrong"] : [];
    document.getElementById("legend").replaceChildren(...kinds.map(([kind, text]) => el("li", {}, el("span", { class: `dot k-${kind}` }), text)), ...states.map(state => el("li", {}, el("span", { class: `swatch ${state}` }), state)));
  }

  listen() {
    const on = (id, action) => document.getElementById(id).addEventListener("click", action);
    on("open", () => this.openLevel());
    on("close", () => { this.open.clear(); this.redraw(); this.graph.fit(); });
    on("fit", () => this.graph.fit());
    on("in", () => this.graph.zoom(1.3));
    on("out", () => this.graph.zoom(1 / 1.3));
    this.graph.element.addEventListener("click", () => { if (!this.graph.dragged) this.select(`g${this.root}`, "graph"); });
    addEventListener("resize", () => this.graph.move());
    document.addEventListener("keydown", event => {
      const isTyping = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement?.tagName);
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
      const actions = {
        "/": () => { this.search.input.focus(); this.search.input.select(); },
        "+": () => this.graph.zoom(1.3), "=": () => this.graph.zoom(1.3), "-": () => this.graph.zoom(1 / 1.3), "0": () => this.graph.fit(),
        Escape: () => this.search.list.hidden ? this.select(`g${this.root}`, "keys") : this.search.clear(),
      };
      if (!actions[event.key]) return;
      event.preventDefault();
      actions[event.key]();
    });
  }

  groupOf(key) {
    const id = Number(key.slice(1));
    return key[0] === "n" ? this.model.nodes[id].group : id;
  }

  // Select a node or a group, and show it in all panes. Where it was selected from decides what moves.
  select(key, from) {
    const group = this.groupOf(key), chain = chainOf(this.model, group);
    for (const each of chain) {
      const repeat = this.model.groups[each].repeat;
      if (repeat && repeat.members.indexOf(each) !== repeat.shown) this.swap(repeat, repeat.members.indexOf(each));
    }
    this.selected = key;
    const around = key[0] === "n" ? chain : chain.slice(0, -1);
    let isNew = chain[0] !== this.root;
    this.root = chain[0];
    if (key[0] === "n" || from !== "keys") {
      for (const each of around.slice(1)) if (!this.open.has(each)) { this.open.add(each); isNew = true; }
    }
    if (isNew || !this.graph.places.has(key)) this.redraw();
    this.graph.mark(key);
    if (from !== "graph") this.graph.show(key);
    if (from === "start" || from === "details" || from === "graph" || from === "search") for (const each of around) this.tree.open.add(each);
    if (from !== "keys" && from !== "tree") this.tree.draw();
    this.tree.mark(key, from === "keys" || from === "tree");
    this.details.draw(key);
    this.drawCrumbs(chain);
  }

  drawCrumbs(chain) {
    document.getElementById("crumbs").replaceChildren(...chain.flatMap((each, i) => [i ? " › " : "", this.details.link(`g${each}`, this.model.groups[each].name)]));
  }

  redraw() {
    this.graph.draw(this.root, this.open);
    this.graph.mark(this.selected);
    this.drawCrumbs(chainOf(this.model, this.groupOf(this.selected)));
  }

  // Open or close a group in the graph; it stays where it is on the screen.
  toggle(group) {
    const before = this.graph.places.get(`g${group}`);
    if (this.open.has(group)) this.open.delete(group);
    else {
      for (const each of chainOf(this.model, group).slice(1)) this.open.add(each);
      this.tree.open.add(group);
    }
    this.root = chainOf(this.model, group)[0];
    this.selected = `g${group}`;
    for (const each of chainOf(this.model, group)) if (each !== group) this.tree.open.add(each);
    this.redraw();
    const after = this.graph.places.get(`g${group}`);
    if (before && after) {
      this.graph.left += (before.x - after.x) * this.graph.scale;
      this.graph.top += (before.y - after.y) * this.graph.scale;
      this.graph.move();
    }
    this.tree.draw();
    this.tree.mark(this.selected);
    this.details.draw(this.selected);
  }

  // Show another one of groups that are alike.
  swap(repeat, index) {
    const [old, chosen] = [repeat.members[repeat.shown], repeat.members[index]];
    repeat.shown = index;
    for (const open of [this.open, this.tree.open]) if (open.has(old)) open.add(chosen);
  }

  choose(repeat, index) {
    this.swap(repeat, index);
    this.tree.draw();
    this.redraw();
    this.select(`g${repeat.members[index]}`, "details");
  }

  followPort(port) {
    const { value } = port, node = port.side === "i" ? value.producer : value.consumers[0];
    if (node !== undefined && node >= 0) this.select(`n${node}`, "details");
  }

  count(open = this.open) {
    const inside = group => itemsOf(this.model, group).reduce((sum, item) => sum + 1 + (item.group && open.has(item.group.id) ? inside(item.group.id) : 0), 0);
    return inside(this.root);
  }

  // Groups that are seen and closed, with what each would show.
  closed() {
    const found = [];
    const look = group => {
      for (const item of itemsOf(this.model, group)) {
        if (!item.group) continue;
        if (this.open.has(item.group.id)) look(item.group.id);
        else found.push([item.group.id, itemsOf(this.model, item.group.id).length]);
      }
    };
    look(this.root);
    return found;
  }

  openFew() {
    for (let total = this.count(), again = true; again;) {
      again = false;
      for (const [group, size] of this.closed()) {
        if (total + size > (this.open.size ? FEW : 150)) return;
        if (this.model.groups[group].all.length < 2) continue;
        this.open.add(group);
        total += size;
        again = true;
      }
    }
  }

  openLevel() {
    let total = this.count();
    for (const [group, size] of this.closed()) {
      if (total + size > MOST_SHOWN) break;
      this.open.add(group);
      total += size;
    }
    this.redraw();
    this.graph.fit();
  }
}

readData().then(data => {
  const app = new App(buildModel(data));
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}).catch(error => {
  document.querySelector("main").replaceChildren(el("p", { class: "card wrong" }, `This page can't be shown: ${error}. Open it in a browser of 2023 or later.`));
  document.documentElement.dataset.failed = String(error);
});

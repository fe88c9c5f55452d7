// The graph as SVG, with zoom and pan.

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function svgText(x, y, text, kind, anchor = null) {
  const element = svg("text", { x, y, class: kind, "text-anchor": anchor });
  element.textContent = text;
  return element;
}

function curve(points) {
  const [first, ...rest] = points;
  let path = `M${first.x.toFixed(1)} ${first.y.toFixed(1)}`;
  for (let i = 0; i < rest.length - 1; i += 1) {
    const middle = { x: (rest[i].x + rest[i + 1].x) / 2, y: (rest[i].y + rest[i + 1].y) / 2 };
    const end = i === rest.length - 2 ? rest[i + 1] : middle;
    path += ` Q${rest[i].x.toFixed(1)} ${rest[i].y.toFixed(1)} ${end.x.toFixed(1)} ${end.y.toFixed(1)}`;
  }
  return rest.length === 1 ? `${path} L${rest[0].x.toFixed(1)} ${rest[0].y.toFixed(1)}` : path;
}

class GraphPane {
  constructor(app, element) {
    this.app = app;
    this.element = element;
    this.scale = 1; this.left = 0; this.top = 0;
    this.places = new Map();
    element.addEventListener("wheel", event => {
      event.preventDefault();
      const box = element.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    element.addEventListener("pointerdown", event => this.startDrag(event));
    element.addEventListener("keydown", event => this.key(event));
  }

  draw(root, open) {
    const layout = layoutOf(this.app.model, root, open);
    this.layout = layout;
    this.places.clear();
    this.edges = [];
    this.content = svg("g");
    this.drawLayout(layout, this.content, 0, 0);
    const arrow = svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, svg("path", { d: "M0 0.8 L7 4 L0 7.2 Z", class: "arrow" }));
    this.element.replaceChildren(svg("svg", { width: "100%", height: "100%", role: "group", "aria-label": "Graph" }, svg("defs", {}, arrow), this.content));
    this.move();
  }

  drawLayout(layout, parent, x, y) {
    const edges = svg("g", { class: "edges" }), items = svg("g");
    parent.append(edges, items);
    for (const edge of layout.edges) this.drawEdge(edge, edges, x, y);
    for (const item of layout.items) this.drawItem(item, items, x, y);
  }

  drawEdge(edge, parent, x, y) {
    const points = edge.points.map(point => ({ x: point.x + x, y: point.y + y }));
    const values = edge.values.filter(Boolean);
    const path = svg("path", { d: curve(points), class: `edge ${edge.kind}`, "marker-end": "url(#arrow)" });
    if (values.length) path.append(svgTitle(values.slice(0, 12).map(value => `${value.name} ${value.type}`).join("\n")));
    parent.append(path);
    this.edges.push({ path, edge });
  }

  drawItem(item, parent, x, y) {
    const left = item.x + x, top = item.y + y, { model } = this.app;
    const what = item.port ? `port ${item.port.side}` : item.node ? `node k-${kindOf(item.node.op)}` : `group ${item.inner ? "open" : ""} ${item.group.kind}`;
    const subject = item.node ?? item.group;
    const marks = [subject?.isWrong ? "wrong" : "", item.node?.status ?? (item.group ? groupStatus(item.group) : "")];
    const element = svg("g", { class: `item ${what} ${marks.join(" ")}`, transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})`, role: "button", "aria-label": item.lines.join(" ") });
    element.append(svg("rect", { width: item.width, height: item.height, rx: item.port ? 13 : item.node ? 6 : 9, class: "box" }));
    if (item.group?.repeat && !item.inner) {
      for (const step of [6, 3]) element.prepend(svg("rect", { x: step, y: step, width: item.width, height: item.height, rx: 9, class: "box shade" }));
    }
    if (item.node) element.append(svg("path", { d: `M4 1 H6 A0 0 0 0 0 6 1 V${item.height - 1} H4 A4 4 0 0 1 1 ${item.height - 5} V5 A4 4 0 0 1 4 1`, class: "stripe" }));
    const indent = item.group ? 26 : item.port ? 13 : 14;
    if (item.group) element.append(this.toggle(item));
    const single = !item.lines[1] || item.inner;
    element.append(svgText(indent, single ? (item.inner ? 19 : 18) : 17, item.lines[0], "name"));
    if (item.lines[1]) {
      if (item.inner) element.append(svgText(indent + textWidth(item.lines[0], 12.5) + 10, 19, fitting(item.lines[1], item.width - indent - textWidth(item.lines[0], 12.5) - 70), "more"));
      else element.append(svgText(indent, 33, item.lines[1], "more"));
    }
    if (item.lines[2]) element.append(...badge(item.width - textWidth(item.lines[2], 12) - 20, 7, item.lines[2]));
    element.append(svgTitle(item.node ? `${item.node.name}\n${item.node.torch || item.node.op}` : item.port ? `${item.port.name} ${item.port.type ?? ""}` : item.group.path || item.group.name));
    parent.append(element);
    if (subject) {
      this.places.set(item.key, { x: left, y: top, width: item.width, height: item.height, element });
      element.addEventListener("click", event => { event.stopPropagation(); if (!this.dragged) this.app.select(item.key, "graph"); });
      if (item.group) element.addEventListener("dblclick", event => { event.stopPropagation(); this.app.toggle(item.group.id); });
    } else if (item.port.value) {
      element.addEventListener("click", event => { event.stopPropagation(); if (!this.dragged) this.app.followPort(item.port, model.groups); });
    }
    if (item.inner) this.drawLayout(item.inner, parent, left + (item.width - item.inner.width) / 2, top + HEAD);
  }

  toggle(item) {
    const sign = item.inner ? "M8 15 H18" : "M8 15 H18 M13 10 V20";
    const element = svg("g", { class: "toggle", role: "button", "aria-label": item.inner ? "Close" : "Open" },
      svg("rect", { x: 4, y: 6, width: 18, height: 18, rx: 4 }), svg("path", { d: sign }));
    element.addEventListener("click", event => { event.stopPropagation(); this.app.toggle(item.group.id); });
    element.addEventListener("dblclick", event => event.stopPropagation());
    return element;
  }

  // Which item is selected, and the edges that touch it.
  mark(key) {
    for (const [each, place] of this.places) place.element.classList.toggle("selected", each === key);
    for (const { path, edge } of this.edges) path.classList.toggle("near", edge.from === key || edge.to === key);
  }

  move() {
    this.content?.setAttribute("transform", `translate(${this.left.toFixed(1)} ${this.top.toFixed(1)}) scale(${this.scale.toFixed(4)})`);
  }

  zoom(factor, x = this.element.clientWidth / 2, y = this.element.clientHeight / 2) {
    const scale = Math.min(3, Math.max(0.03, this.scale * factor)), ratio = scale / this.scale;
    this.left = x - (x - this.left) * ratio;
    this.top = y - (y - this.top) * ratio;
    this.scale = scale;
    this.move();
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const wanted = Math.min(1.15, (width - 30) / this.layout.width, (height - 30) / this.layout.height);
    this.scale = Math.max(wanted, Math.min(0.55, Math.max((width - 30) / this.layout.width, 0.4)));
    const first = this.layout.items.reduce((top, item) => item.group && (!top || item.y < top.y) ? item : top, null) ?? this.layout.items[0];
    const isWide = this.layout.width * this.scale > width && first;
    this.left = isWide ? width / 2 - (first.x + first.width / 2) * this.scale : (width - this.layout.width * this.scale) / 2;
    this.top = Math.max(15, (height - this.layout.height * this.scale) / 2);
    this.move();
    return this.scale;
  }

  // Bring an item into view, at a size at which it can be read.
  show(key) {
    const place = this.places.get(key);
    if (!place) return;
    const { clientWidth: width, clientHeight: height } = this.element;
    if (this.scale < 0.5) this.scale = Math.max(0.5, Math.min(0.9, width / (place.width + 60)));
    const x = place.x * this.scale + this.left, y = place.y * this.scale + this.top;
    if (x < 10 || y < 10 || x + place.width * this.scale > width - 10 || y + Math.min(place.height, 60) * this.scale > height - 10) {
      this.left = width / 2 - (place.x + place.width / 2) * this.scale;
      this.top = height / 2 - (place.y + Math.min(place.height, height / this.scale - 40) / 2) * this.scale;
    }
    this.move();
  }

  startDrag(event) {
    if (event.button !== 0) return;
    this.dragged = false;
    const from = { x: event.clientX - this.left, y: event.clientY - this.top }, start = { x: event.clientX, y: event.clientY };
    const drag = moved => {
      if (Math.hypot(moved.clientX - start.x, moved.clientY - start.y) > 4) this.dragged = true;
      if (!this.dragged) return;
      this.left = moved.clientX - from.x;
      this.top = moved.clientY - from.y;
      this.move();
    };
    const stop = () => { removeEventListener("pointermove", drag); removeEventListener("pointerup", stop); };
    addEventListener("pointermove", drag);
    addEventListener("pointerup", stop);
  }

  key(event) {
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (!step || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.left += step[0];
    this.top += step[1];
    this.move();
  }
}

function svgTitle(text) {
  const element = svg("title");
  element.textContent = text;
  return element;
}

function fitting(text, width) {
  return width < 40 ? "" : clipped(text, Math.floor(width / 6.6));
}

function badge(x, y, text) {
  return [svg("rect", { x, y, width: textWidth(text, 12) + 13, height: 17, rx: 8.5, class: "count" }), svgText(x + 6.5, y + 12.5, text, "counttext")];
}

function groupStatus(group) {
  const { added, removed, changed } = group.status, count = group.all.length;
  if (!count || !(added + removed + changed)) return "";
  return added === count ? "added" : removed === count ? "removed" : "changed";
}

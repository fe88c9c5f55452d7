// Where things are: each open group is laid out by itself, and is then a box in the group around it.

const HEAD = 30, MARGIN = 14, MOST_PORTS = 8;

function textWidth(text, size) {
  return text.length * size * (size > 12 ? 0.63 : 0.6);
}

function clipped(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

function linesOf(model, item) {
  if (item.port) return [clipped(item.port.name || "?", 26), clipped(shortType(item.port.type ?? ""), 30)];
  if (item.node) {
    const node = item.node, value = model.values[node.outputs[0]];
    return [clipped(node.op, 28), clipped(value ? shortType(value.type) : "", 32)];
  }
  const group = item.group, count = group.repeat ? group.repeat.members.length : 1;
  const kind = group.kind === "module" ? shortClass(group.type) : group.kind;
  const more = [kind, `${countText(group.all.length)}${count > 1 ? " each" : ""}`];
  if (group.bytes) more.push(bytesText(group.bytes));
  return [clipped(labelOf(model, group), 34), clipped(more.filter(Boolean).join(" · "), 44), count > 1 ? `× ${count}` : ""];
}

function sizeOf(lines, item) {
  const badge = lines[2] ? textWidth(lines[2], 12) + 18 : 0;
  const width = Math.max(textWidth(lines[0], 12.5) + badge + (item.group ? 18 : 0), textWidth(lines[1], 11));
  return { width: Math.max(item.port ? 60 : 84, Math.min(width + 26, 330)), height: lines[1] ? 42 : 28 };
}

// The item of a group that holds a node; null where the node is outside.
function lifter(model, group) {
  const cache = new Map();
  return id => {
    const node = model.nodes[id];
    if (node.group === group) return `n${id}`;
    if (!cache.has(node.group)) {
      let at = node.group;
      while (at >= 0 && model.groups[at].parent !== group) at = model.groups[at].parent;
      cache.set(node.group, at < 0 ? null : `g${shownOf(model, at)}`);
    }
    return cache.get(node.group);
  };
}

// What flows in a group: edges between its items, values that come in, and values that go out.
function flowOf(model, group) {
  const lift = lifter(model, group), edges = new Map(), ins = new Map(), outs = new Map();
  const connect = (from, to, value, kind) => {
    const key = `${from} ${to}`;
    if (!edges.has(key)) edges.set(key, { from, to, values: [], kind });
    edges.get(key).values.push(value);
  };
  const isOpen = ["graph", "function"].includes(model.groups[group].kind);
  for (const id of model.groups[group].all) {
    const node = model.nodes[id], to = lift(id);
    for (const input of new Set(node.inputs)) {
      if (input < 0) continue;
      const value = model.values[input];
      if (value.bytes >= 0) continue;
      const from = value.producer < 0 ? null : lift(value.producer);
      if (from === null) {
        if (value.producer < 0 && value.home !== group && isInside(model, value.home, group)) continue;
        if (!ins.has(value.id)) ins.set(value.id, { value, items: new Set() });
        ins.get(value.id).items.add(to);
      } else if (from !== to) connect(from, to, value, "flow");
    }
    for (const output of node.outputs) {
      const value = model.values[output];
      const leaves = model.outputs.has(output) || value.consumers.some(consumer => lift(consumer) === null)
        || (isOpen && !value.consumers.length);
      if (leaves && value.name) outs.set(output, { value, items: new Set([to]) });
    }
    if (node.group === group) for (const body of node.bodies) if (model.groups[body].all.length) connect(to, `g${body}`, null, "body");
  }
  return { edges: [...edges.values()], ins: [...ins.values()], outs: [...outs.values()] };
}

function portsOf(list, side) {
  const ports = list.slice(0, MOST_PORTS).map(({ value, items }) => ({
    key: `${side}${value.id}`, port: { name: value.name, type: value.type, value, side }, links: items,
  }));
  if (list.length > MOST_PORTS) {
    const rest = list.slice(MOST_PORTS), links = new Set(rest.flatMap(({ items }) => [...items]));
    ports.push({ key: `${side}-rest`, port: { name: `${rest.length} more`, type: "", value: null, side }, links });
  }
  return ports;
}

function layoutOf(model, group, open) {
  const flow = flowOf(model, group);
  const ports = [...portsOf(flow.ins, "i"), ...portsOf(flow.outs, "o")];
  const items = [...itemsOf(model, group), ...ports];
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "TB", nodesep: 22, edgesep: 12, ranksep: 34, marginx: MARGIN, marginy: MARGIN, ranker: items.length > 120 ? "longest-path" : "network-simplex" });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const item of items) {
    item.lines = linesOf(model, item);
    if (item.group && open.has(item.group.id)) {
      item.inner = layoutOf(model, item.group.id, open);
      const head = textWidth(item.lines[0], 12.5) + textWidth(item.lines[1], 11) + (item.lines[2] ? 110 : 60);
      item.size = { width: Math.max(item.inner.width, head), height: item.inner.height + HEAD };
    } else item.size = sizeOf(item.lines, item);
    graph.setNode(item.key, { ...item.size });
  }
  // of groups that are alike one is shown: what flows back to it, flows to the next one
  const place = new Map(items.map(item => [item.key, item]));
  const isBack = ({ from, to }) => place.get(from).at > place.get(to).at && [from, to].some(key => place.get(key).group?.repeat);
  const edges = flow.edges.filter(edge => !isBack(edge));
  for (const { key, port, links } of ports) for (const link of links) {
    edges.push(port.side === "i" ? { from: key, to: link, values: [port.value], kind: "flow" } : { from: link, to: key, values: [port.value], kind: "flow" });
  }
  for (const edge of edges) graph.setEdge(edge.from, edge.to, { weight: edge.kind === "body" ? 0 : 1 });
  dagre.layout(graph);
  for (const item of items) {
    const placed = graph.node(item.key);
    Object.assign(item, { x: placed.x - placed.width / 2, y: placed.y - placed.height / 2, width: placed.width, height: placed.height });
  }
  for (const edge of edges) edge.points = graph.edge(edge.from, edge.to).points;
  const whole = graph.graph();
  return { group, items, edges, width: Math.max(whole.width || 0, 60), height: Math.max(whole.height || 0, 40) };
}

// The model: what the data say, as objects that know each other.

async function readData() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

function sums(steps) {
  let total = 0;
  return steps.map(step => total += step);
}

function buildModel(data) {
  const text = number => data.strings[number];
  const model = { about: data.about, hasLatency: Boolean(data.latency), repeats: [] };
  model.groups = data.groups.kind.map((kind, id) => ({
    id, kind, name: text(data.groups.name[id]), path: text(data.groups.path[id]), type: text(data.groups.type[id]),
    parent: data.groups.parent[id], children: [], nodes: [], all: [], bytes: 0, us: 0, isWrong: false,
    status: { added: 0, removed: 0, changed: 0 }, repeat: null, first: Infinity,
  }));
  model.values = data.values.name.map((name, id) => ({
    id, name: text(name), type: text(data.values.type[id]), bytes: data.values.bytes[id] ?? -1, producer: -1,
    consumers: [], home: -1,
  }));
  buildNodes(model, data, text);
  buildGroups(model, data);
  return model;
}

function buildNodes(model, data, text) {
  const columns = data.nodes, groups = sums(columns.group), firsts = sums(columns.first);
  const without = new Set(columns.no_outputs);
  const frames = data.frames.map(([file, line, code, source]) => ({
    file: text(file), line, inside: text(code), code: text(source),
  }));
  model.nodes = columns.name.map((name, id) => {
    const first = firsts[id];
    const outputs = without.has(id) ? [] : [first, ...columns.outputs[id].map(step => first + step)];
    return {
      id, name: text(name), op: text(columns.op[id]), group: groups[id], outputs,
      inputs: columns.inputs[id].map(step => step === null ? -1 : first - step),
      torch: text(columns.torch[id]), translation: text(columns.translation[id]), plugin: text(columns.plugin[id]),
      fx: columns.fx[id] < 0 ? model.values[first].name : text(columns.fx[id]),
      trace: data.traces[columns.trace[id]].map(frame => frames[frame]),
      attributes: data.attributes[columns.attributes[id]].map(pair => pair.map(text)),
      bodies: columns.bodies[id] ?? [], call: columns.function[id] ?? -1,
      status: columns.status[id] ?? "", changes: columns.changes[id] ?? [], place: null, us: data.latency?.[id] ?? 0, isWrong: false,
    };
  });
  for (const node of model.nodes) {
    // the model's own line, where torch's modules are its parts
    node.place = node.trace.findLast(frame => !frame.file.startsWith("torch/")) ?? node.trace[node.trace.length - 1] ?? null;
    for (const value of node.outputs) model.values[value].producer = node.id;
    for (const value of new Set(node.inputs)) if (value >= 0) model.values[value].consumers.push(node.id);
  }
  model.inputs = data.inputs;
  model.outputs = new Set(data.outputs);
  const wrong = model.about.mismatch?.mismatch;
  if (wrong) {
    const named = model.nodes.find(node => node.outputs.some(value => model.values[value].name === wrong.value))
      ?? model.nodes.find(node => node.fx === wrong.node && node.op === wrong.onnx_operator);
    if (named) named.isWrong = true;
    model.wrong = named ?? null;
  }
}

function buildGroups(model, data) {
  const { groups, nodes, values } = model;
  for (const group of groups) if (group.parent >= 0) groups[group.parent].children.push(group.id);
  for (const node of nodes) {
    groups[node.group].nodes.push(node.id);
    for (let at = node.group; at >= 0; at = groups[at].parent) {
      const group = groups[at];
      group.all.push(node.id);
      group.first = Math.min(group.first, node.id);
      group.us += node.us;
      group.isWrong ||= node.isWrong;
      if (node.status) group.status[node.status] += 1;
    }
  }
  for (const value of values) {
    if (value.bytes > 0) {
      const owner = value.consumers.length ? nodes[value.consumers[0]].group : 0;
      for (let at = owner; at >= 0; at = groups[at].parent) groups[at].bytes += value.bytes;
    }
    if (value.bytes < 0 && value.producer < 0) value.home = homeOf(model, value);
  }
  for (const input of model.inputs) values[input].home = 0;
  for (const members of data.repeats) {
    const repeat = { members, shown: 0 };
    for (const member of members) groups[member].repeat = repeat;
    model.repeats.push(repeat);
  }
  for (const group of groups) group.children = group.children.filter(child => groups[child].all.length);
}

// The graph that an input without a producer belongs to: the outermost one of those that use it.
function homeOf(model, value) {
  let home = -1, least = Infinity;
  for (const consumer of value.consumers) {
    let at = model.nodes[consumer].group;
    while (model.groups[at].parent >= 0 && model.groups[at].kind !== "graph") at = model.groups[at].parent;
    let depth = 0;
    for (let up = at; up >= 0; up = model.groups[up].parent) depth += 1;
    if (depth < least) [home, least] = [at, depth];
  }
  return home;
}

function isInside(model, group, around) {
  for (let at = group; at >= 0; at = model.groups[at].parent) if (at === around) return true;
  return false;
}

function chainOf(model, group) {
  const chain = [];
  for (let at = group; at >= 0; at = model.groups[at].parent) chain.unshift(at);
  return chain;
}

// What a group is made of, in the order of the model: nodes, and groups; of groups that are alike, the one shown.
function itemsOf(model, group) {
  const items = model.groups[group].nodes.map(id => ({ key: `n${id}`, node: model.nodes[id], at: id }));
  const repeats = new Set();
  for (const id of model.groups[group].children) {
    const child = model.groups[id];
    if (child.repeat) {
      if (repeats.has(child.repeat)) continue;
      repeats.add(child.repeat);
      items.push({ key: `g${shownOf(model, id)}`, group: model.groups[shownOf(model, id)], at: child.first });
    } else items.push({ key: `g${id}`, group: child, at: child.first });
  }
  return items.sort((a, b) => a.at - b.at);
}

function shownOf(model, group) {
  const repeat = model.groups[group].repeat;
  return repeat ? repeat.members[repeat.shown] : group;
}

function labelOf(model, group) {
  const repeat = group.repeat;
  if (!repeat) return group.name;
  const first = model.groups[repeat.members[0]].name, last = model.groups[repeat.members[repeat.members.length - 1]].name;
  const stem = first.replace(/[^.]*$/, "");
  return `${first} … ${last.startsWith(stem) ? last.slice(stem.length) : last}`;
}

function bytesText(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (count >= 1024 && at < 3) { count /= 1024; at += 1; }
  return `${at ? count.toFixed(1) : count} ${units[at]}`;
}

function countText(count) {
  return `${count.toLocaleString("en")} node${count === 1 ? "" : "s"}`;
}

// Added, removed and changed nodes of a group, and of those that are like it.
function statusOf(model, group) {
  const total = { added: 0, removed: 0, changed: 0 };
  for (const id of group.repeat?.members ?? [group.id]) for (const name of Object.keys(total)) total[name] += model.groups[id].status[name];
  return total;
}

function timeText(us) {
  return us >= 1000 ? `${(us / 1000).toFixed(2)} ms` : `${us.toFixed(1)} µs`;
}

function shortClass(name) {
  return name.slice(name.lastIndexOf(".") + 1);
}

const SHORT = { float32: "f32", float64: "f64", float16: "f16", bfloat16: "bf16" };

function shortType(type) {
  return type.replace(/^(float32|float64|float16|bfloat16)(?=\[|$)/, kind => SHORT[kind])
    .replace(/^u?int\d+(?=\[)/, kind => kind.replace("int", "i"));
}

const KINDS = [
  ["matmul", "products", /^(MatMul\w*|Gemm|\w*Conv\w*|Einsum|\w*Attention\w*|Q?Linear\w*|LSTM|GRU|RNN|Det|DFT|STFT)$/],
  ["norm", "norms, pools", /Normalization|Norm$|Pool|^LRN$|^Reduce|Softmax|^CumSum$|^Hardmax$/],
  ["act", "activations", /^(\w*Relu\w*|Gelu|FastGelu|Sigmoid|HardSigmoid|HardSwish|Swish|Tanh|Erf|Elu|Selu|Celu|Mish|Soft\w+|Dropout|Clip)$/],
  ["shape", "shapes, data", /^(Reshape|Transpose|Squeeze|Unsqueeze|Flatten|Expand|Concat|Split\w*|Slice|Gather\w*|Scatter\w*|Pad|Tile|Shape|Size|Resize|Identity|Cast\w*|Where|Range|OneHot|Trilu|DepthToSpace|SpaceToDepth|Compress|TopK|NonZero|Constant\w*|EyeLike|QuantizeLinear|DequantizeLinear|DynamicQuantizeLinear)$/],
  ["call", "calls, control flow", /::|^(If|Loop|Scan|SequenceMap)$/],
];

function kindOf(op) {
  const standard = op.replace(/^com\.microsoft::/, "");
  for (const [kind, , pattern] of KINDS) if (pattern.test(standard)) return kind;
  return "math";
}

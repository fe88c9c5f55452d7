"""Forms of attention, norms and rotations in onnxruntime: which one a translation should write.

``python tests/benchmarks/attention.py [--runs 100]``

One model of a few nodes a form, one thread, in turn in one process. Numbers are the lower quartile of the thread's CPU
time in milliseconds. Behind the name stand the operators that onnxruntime runs after its optimizations.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import parser
from runtimes import cpu_times

_ATTENTION = """<ir_version: 10, opset_import: ["" : {opset}]>
g (float[B,{hq},S,{d}] q, float[B,{hk},T,{d}] k, float[B,{hk},T,{d}] v, bool[B,1,S,T] mask) => (float[B,{hq},S,{d}] y)
<float scale = {{0.125}}, float zero = {{0}}, float least = {{-3.4e38}}, int64[1] two = {{2}}, int64[1] one = {{1}},
 int64[5] spread = {{1, 1, {g}, 1, 1}}, int64[4] joined = {{0, {hq}, -1, {d}}}, int64[4] rows = {{0, {hk}, -1, {d}}},
 int64[5] groups = {{0, {hk}, {g}, -1, {d}}}, int64[1] s = {{{s}}}, int64[4] heads = {{0, {hq}, {s}, 0}},
 int64[4] packed = {{0, {hk}, {gs}, 0}}, int64[4] out = {{0, {hq}, {s}, {d}}}> {{
 bias = Where (mask, zero, least)
 {body}
}}"""

_KEYS = "kt = Transpose <perm = [0, 1, 3, 2]> ({k})\n"
_REPEAT = """k5 = Unsqueeze (k, two) ke = Expand (k5, spread) kr = Reshape (ke, joined)
 v5 = Unsqueeze (v, two) ve = Expand (v5, spread) vr = Reshape (ve, joined)"""
ATTENTION = {
    "keys repeated": (20, _REPEAT + _KEYS.format(k="kr") + """qs = Mul (q, scale) p = MatMul (qs, kt)
 m = Add (p, bias) w = Softmax <axis = -1> (m) y = MatMul (w, vr)"""),
    "5-d broadcast": (20, """q5 = Reshape (q, groups) qs = Mul (q5, scale) k5 = Unsqueeze (k, two)
 v5 = Unsqueeze (v, two)
 kt = Transpose <perm = [0, 1, 2, 4, 3]> (k5) p = MatMul (qs, kt) b5 = Unsqueeze (bias, two) m = Add (p, b5)
 w = Softmax <axis = -1> (m) y5 = MatMul (w, v5) y = Reshape (y5, joined)"""),
    "rows of groups": (20, _KEYS.format(k="k") + """qr = Reshape (q, rows) qs = Mul (qr, scale) p = MatMul (qs, kt)
 ph = Reshape (p, heads) m = Add (ph, bias) w = Softmax <axis = -1> (m) wr = Reshape (w, packed)
 yr = MatMul (wr, v) y = Reshape (yr, out)"""),
    "Attention-23": (23, "y = Attention <scale = 0.125> (q, k, v, bias)"),
}  # fmt: skip

_NORM = """<ir_version: 10, opset_import: ["" : {opset}]> g (float[B,S,{d}] x, float[{d}] w) => (float[B,S,{d}] y)
<float eps = {{0.000001}}, float two = {{2}}, int64[1] last = {{-1}}> {{ {body} }}"""
_MEAN = "m = ReduceMean (s, last) a = Add (m, eps) r = Sqrt (a) "
NORMS = {
    "Mul, Reciprocal": (20, f"s = Mul (x, x) {_MEAN} i = Reciprocal (r) z = Mul (x, i) y = Mul (z, w)"),
    "Pow, Div": (20, f"s = Pow (x, two) {_MEAN} z = Div (x, r) y = Mul (z, w)"),
    "RMSNormalization-23": (23, "y = RMSNormalization <axis = -1, epsilon = 0.000001> (x, w)"),
}

_ROTATION = """<ir_version: 10, opset_import: ["" : {opset}]>
g (float[B,{h},S,{d}] x, float[B,1,S,{d}] cos, float[B,1,S,{d}] sin, float[B,S,{half}] c, float[B,S,{half}] t)
 => (float[B,{h},S,{d}] y)
<int64[1] zero = {{0}}, int64[1] half = {{{half}}}, int64[1] axis = {{3}}, int64[1] end = {{{d}}}> {{ {body} }}"""
ROTATIONS = {
    "halves": (20, """a = Mul (x, cos) l = Slice (x, zero, half, axis) r = Slice (x, half, end, axis) n = Neg (r)
 z = Concat <axis = 3> (n, l) b = Mul (z, sin) y = Add (a, b)"""),
    "RotaryEmbedding-23": (23, "y = RotaryEmbedding (x, c, t)"),
}  # fmt: skip


def _session(text: str, folder: Path) -> tuple[Any, str]:
    """A session, and what it runs."""
    model = parser.parse_model(text)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)
    return session, ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items())


def _compare(title: str, texts: dict[str, str], feed: dict[str, Any], runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {name: _session(text, Path(folder)) for name, text in texts.items()}
    sessions = {name: session for name, (session, _) in found.items()}
    given = {
        name: {value.name: feed[value.name] for value in session.get_inputs()} for name, session in sessions.items()
    }
    results = [session.run(None, given[name])[0] for name, session in sessions.items()]
    for result in results:
        np.testing.assert_allclose(result, results[0], rtol=1e-3, atol=1e-4)
    print(title)
    for name, milliseconds in cpu_times(sessions, given, runs).items():
        print(f"  {milliseconds:8.3f}  {name}: {found[name][1]}", flush=True)


def _random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def attention(hq: int, hk: int, d: int, queries: int, keys: int, runs: int) -> None:
    """All forms at one size, with a mask of bools."""
    sizes = {"hq": hq, "hk": hk, "d": d, "g": hq // hk, "s": queries, "gs": hq // hk * queries}
    texts = {name: _ATTENTION.format(opset=opset, body=body, **sizes) for name, (opset, body) in ATTENTION.items()}
    q, k, v = _random(1, hq, queries, d), _random(1, hk, keys, d), _random(1, hk, keys, d)
    mask = np.tril(np.ones((1, 1, queries, keys), bool), keys - queries)
    feed = {"q": q, "k": k, "v": v, "mask": mask}
    _compare(f"attention {hq}/{hk} heads of {d}, {queries} queries, {keys} keys", texts, feed, runs)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=100)
    runs = options.parse_args().runs
    for queries, keys in ((1, 128), (1, 512), (1, 1024), (1, 2048), (16, 512), (256, 256)):
        attention(16, 4, 64, queries, keys, runs if queries < 100 else runs // 5)
    attention(32, 8, 128, 1, 1024, runs)
    attention(12, 12, 64, 128, 128, runs)
    for rows, d in ((1, 1024), (256, 2048)):
        texts = {name: _NORM.format(opset=opset, body=body, d=d) for name, (opset, body) in NORMS.items()}
        _compare(f"norm {rows}x{d}", texts, {"x": _random(1, rows, d), "w": _random(d)}, runs)
    for rows, d in ((1, 64), (256, 64)):
        sizes = {"h": 16, "d": d, "half": d // 2}
        texts = {name: _ROTATION.format(opset=opset, body=body, **sizes) for name, (opset, body) in ROTATIONS.items()}
        c, s = _random(1, rows, d // 2), _random(1, rows, d // 2)
        tables = {
            "cos": np.concatenate([c, c], -1)[:, None],
            "sin": np.concatenate([s, s], -1)[:, None],
            "c": c,
            "t": s,
        }
        _compare(f"rotation of 16 heads, {rows}x{d}", texts, {"x": _random(1, 16, rows, d), **tables}, runs)


if __name__ == "__main__":
    main()

"""Pages as tests see them: their data, and what a real browser makes of them."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import shutil
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), ""
)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed (apt-get install chromium)")
_DATA = re.compile(r'<script type="text/plain" id="data">([A-Za-z0-9+/=]*)</script>')

# Runs when the page is ready. Keys and clicks are what a user does; `done` gives the test what came of it.
_DRIVER = """
const failures = [];
addEventListener("securitypolicyviolation", event => failures.push(`asked for ${event.blockedURI}`));
addEventListener("error", event => failures.push(String(event.message)));
const $ = selector => document.querySelector(selector), all = selector => [...document.querySelectorAll(selector)];
const texts = selector => all(selector).map(element => element.textContent);
const key = (name, on = document.activeElement) =>
  on.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
const search = text => { $("#search").value = text; $("#search").dispatchEvent(new Event("input")); };
const openTree = () => {
  for (let i = 0; i < 8; i += 1) all('#tree [aria-expanded="false"] .twist').forEach(each => each.click());
};
const row = text => all("#tree .row").find(each => each.textContent.includes(text));
const selected = () => all('#tree [aria-selected="true"] .label').map(element => element.textContent).join();
function done(result) {
  const element = document.createElement("pre");
  element.id = "result";
  element.textContent = JSON.stringify({ ...result, failures });
  document.body.append(element);
}
(function wait() {
  const root = document.documentElement;
  if (root.dataset.failed) done({ failed: root.dataset.failed });
  else if (!root.dataset.ready) setTimeout(wait, 20);
  else try { done(play()); } catch (error) { done({ failed: String(error.stack) }); }
})();
"""


def data_of(page: str) -> dict[str, Any]:
    """The data that a page holds."""
    found = _DATA.search(page)
    assert found is not None
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return data


def played(page: str, folder: Path, script: str, *options: str) -> dict[str, Any]:
    """What a script returns that a browser, started with further options, runs in a page, once this is ready."""
    file = folder / "played.html"
    driver = f"<script>function play() {{ {script} }}\n{_DRIVER}</script>"
    file.write_text(page.replace("</body>", f"{driver}</body>"), "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"]
    command += [
        *options,
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=20000",
        "--dump-dom",
        file.as_uri(),
    ]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=240).stdout
    found = re.search(r'<pre id="result">(.*?)</pre>', dumped, re.DOTALL)
    assert found is not None, f"the script did not run: {dumped[-2000:]}"
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert "failed" not in result, result["failed"]
    assert result["failures"] == []
    return result


class Browser:
    """A browser that is asked by the protocol of its developer tools, over a pipe."""

    def __init__(self, folder: Path) -> None:
        for_it, self._requests = os.pipe()
        self._answers, from_it = os.pipe()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900", "about:blank"]
        shell = ["bash", "-c", f'exec 3<&{for_it} 4>&{from_it}; exec "$@"', "bash"]  # where it expects the pipe
        self._process = subprocess.Popen(
            [*shell, *command], pass_fds=(for_it, from_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(for_it)
        os.close(from_it)
        self._unread = b""
        self._count = 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Performance.enable", timeDomain="threadTicks")  # what other processes do counts for nothing

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._requests)
        os.close(self._answers)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        request: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            request["sessionId"] = self._session
        os.write(self._requests, json.dumps(request).encode() + b"\0")
        while True:
            while b"\0" not in self._unread:
                read = os.read(self._answers, 1 << 16)
                assert read, "the browser has ended"
                self._unread += read
            message, _, self._unread = self._unread.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, file: Path) -> None:
        """Open a page, and wait until it is ready."""
        self._call("Page.navigate", url=file.as_uri())
        end = time.monotonic() + 120
        while not self.evaluated("document.documentElement.dataset.ready"):
            assert time.monotonic() < end, "the page isn't ready"
            time.sleep(0.05)

    def evaluated(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    @property
    def seconds(self) -> float:
        """The time that the page's thread has worked."""
        metrics = self._call("Performance.getMetrics")["metrics"]
        return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def value(name: str, *shape: int | str, weight: bool = False) -> ir.Value:
    """A float32 value; a weight has data."""
    dims = ir.Shape([ir.SymbolicDim(dim) if isinstance(dim, str) else dim for dim in shape])
    made = ir.Value(name=name, shape=dims, type=ir.TensorType(ir.DataType.FLOAT))
    if weight:
        made.const_value = ir.LazyTensor(_unread, ir.DataType.FLOAT, dims, name=name)
    return made


def _unread() -> Any:
    raise AssertionError("a page reads no weights")


def properties(path: str, fx_node: str, operator: str, line: int = 1) -> dict[str, str]:
    """Metadata as onnxport and torch's exporter write them, for a node of a module ``a.b1`` of a class ``B``."""
    paths = [".".join(path.split(".")[: i + 1]) for i in range(len(path.split(".")))] if path else []
    classes = ["pack.Model", *(f"pack.{each.split('.')[-1].rstrip('0123456789').title()}" for each in paths)]
    return {
        "pkg.torch.onnx.name_scopes": repr(["", *paths, fx_node]),
        "pkg.torch.onnx.class_hierarchy": repr([*classes, operator]),
        "pkg.torch.onnx.stack_trace": f'File "pack/model.py", line {line}, in forward\n    x = {operator}(x)\n'
        'File "torch/nn/modules/linear.py", line 7, in forward\n    return F.linear(x)',
        "onnxport.plugin": "builtin",
        "onnxport.translation": f"onnxport_builtin.aten.{operator}",
    }


def layered(layers: int, each: int) -> ir.Model:
    """A model of equal layers, with the names and metadata that an export gives."""
    x = start = value("input", "batch", "seq", 64)
    nodes, weights = [], []
    operators = ("MatMul", "Add", "Reshape", "Softmax", "Mul", "Gelu", "LayerNormalization", "Transpose")
    for layer in range(layers):
        for i in range(each):
            operator, part = operators[i % len(operators)], ("attn", "mlp")[i * 2 // each]
            name = f"{operator.lower()}_{layer * each + i}"
            inputs = [x]
            if operator == "MatMul":
                weights.append(value(f"layers.l{layer}.{part}.w{i}", 64, 64, weight=True))
                inputs.append(weights[-1])
            x = value(name, "batch", "seq", 64)
            node = ir.Node("", operator, inputs, outputs=[x], name=f"node_{name}")
            node.metadata_props.update(
                properties(f"layers.l{layer}.{part}", name, f"aten.{operator.lower()}.default", i)
            )
            nodes.append(node)
    graph = ir.Graph([start], [x], nodes=nodes, initializers=weights, name="main", opset_imports={"": 20})
    return ir.Model(graph, ir_version=10, producer_name="onnxport")

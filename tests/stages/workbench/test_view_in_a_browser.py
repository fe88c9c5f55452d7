"""The page in a real browser: every node is shown once, keys and search work, and names are only text."""

from __future__ import annotations

from pathlib import Path

import onnxport
import torch
from onnxport_workbench.view import page_of
from page_support import Browser, layered, needs_browser, played
from test_view import Model, hostile

# What a page shows when all of it is open, each of equal layers in its turn.
_EVERYTHING = """
const seen = new Map();
const take = () => {
  openTree();
  for (const leaf of all('#tree .leaf')) seen.set(leaf.dataset.key, leaf.querySelector('.kind').textContent);
};
take();
for (const times of all('#tree .row').filter(each => each.querySelector('.times')).map(each => each.dataset.key)) {
  const start = all('#tree .row').find(each => each.dataset.key === times);
  start.click();
  const count = $('#details select').options.length;
  for (let i = 0; i < count; i += 1) {
    $('#details select').value = i;
    $('#details select').dispatchEvent(new Event('change'));
    take();
  }
}
"""


@needs_browser
def test_every_node_is_shown_and_keys_work(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = onnxport.export(Model().eval(), (torch.randn(2, 8),), dynamic_shapes=({0: "batch"},))
    page = page_of(program.model, "model.onnx", verification=onnxport.verify(program).as_dict())
    result = played(
        page,
        tmp_path,
        """
        const result = { labels: texts('#tree .label'), times: texts('#tree .times') };
        result.roles = all('#tree [role=treeitem]').length;
        all('#tree .row')[0].focus();
        key('ArrowDown'); result.down = selected();
        const rows = all('#tree .row').length;
        key('ArrowRight'); result.more = all('#tree .row').length - rows;
        key('ArrowLeft'); result.closed = all('#tree .row').length - rows;
        key('End'); result.end = selected();
        key('/'); result.searching = document.activeElement.id;
        search('aten.relu'); result.found = $('#found').textContent; result.hits = all('#results .row').length;
        key('ArrowDown'); result.details = $('#details').textContent;
        result.marked = all('#canvas .item.selected .name').map(element => element.textContent);
        result.line = texts('#source .current code');
        key('Escape'); result.left = [$('#results').hidden, $('#tree').hidden];
        key('+'); key('-'); key('0');
        key('Escape'); result.whole = $('#details').textContent;
        result.sizes = [$('#canvas svg').getBoundingClientRect().width > 300, all('#canvas .item').length];
        """
        + _EVERYTHING
        + "result.nodes = [...seen.values()].sort(); return result;",
    )
    assert result["labels"] == ["model.onnx", "layers.0 … 3", "head"]
    assert result["times"] == ["× 4"]
    assert result["roles"] == 3
    assert (result["down"], result["end"]) == ("layers.0 … 3", "head")
    assert result["more"] > 2
    assert result["closed"] == 0
    assert (result["searching"], result["found"], result["hits"]) == ("search", "4 nodes", 4)
    for text in ("Relu", "aten.relu.default", "onnxport_builtin.aten.activation.relu", "builtin", "layers.0",
                 "float32[batch, 8]"):  # fmt: skip
        assert text in result["details"]
    assert result["marked"] == ["Relu"]
    assert result["line"] == ["return x + self.linear(self.norm(x)).relu()"]
    assert result["left"] == [True, False]
    assert "Verification passed" in result["whole"]
    assert result["nodes"] == sorted(node.name for node in program.model.graph)


@needs_browser
def test_five_thousand_nodes_show_few(tmp_path: Path) -> None:
    result = played(
        page_of(layered(100, 50), "big.onnx"),
        tmp_path,
        """
        const first = all('#canvas .item').length;
        $('#open').click(); $('#open').click(); $('#open').click();
        const opened = all('#canvas .item').length;
        search('layers.l57.mlp gelu'); key('ArrowDown', $('#search'));
        return { first, opened, found: $('#found').textContent, shown: texts('#canvas .item.selected .name'),
                 crumbs: $('#crumbs').textContent, labels: texts('#tree .label') };
        """,
    )
    assert 0 < result["first"] < 160
    assert 50 <= result["opened"] < 900
    assert result["found"] == "3 nodes"
    assert result["shown"] == ["Gelu"]
    assert "layers.l57" in result["crumbs"] or "l57" in result["crumbs"]


@needs_browser
def test_five_thousand_nodes_are_interactive_in_a_second(tmp_path: Path) -> None:
    file = tmp_path / "big.html"
    file.write_text(page_of(layered(100, 50), "big.onnx"), "utf-8")
    with Browser(tmp_path) as browser:
        browser.open(file)
        ready = browser.seconds
        found = browser.evaluated("""
            document.querySelector('#search').value = 'layers.l57.mlp gelu';
            document.querySelector('#search').dispatchEvent(new Event('input'));
            document.querySelector('#results .row').click();
            document.querySelector('#canvas .item.selected .name').textContent
        """)
        answered = browser.seconds - ready
    assert found == "Gelu"
    assert 0 < ready < 1 and answered < 1, (ready, answered)


@needs_browser
def test_light_and_dark(tmp_path: Path) -> None:
    """Text is dark on light, or light on dark, as the browser asks; in both it can be read."""
    script = """
        const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number); return (r + g + b) / 765; };
        const style = getComputedStyle(document.body), row = getComputedStyle($('#tree .row'));
        return { dark: matchMedia('(prefers-color-scheme: dark)').matches, back: light(style.backgroundColor),
                 text: light(style.color), row: light(row.color) };
    """
    light = played(page_of(layered(2, 8), "m.onnx"), tmp_path, script)
    dark = played(page_of(layered(2, 8), "m.onnx"), tmp_path, script, "--blink-settings=preferredColorScheme=0")
    assert (light["dark"], dark["dark"]) == (False, True)
    for name in ("text", "row"):
        assert light["back"] - light[name] > 0.5 and dark[name] - dark["back"] > 0.5, (light, dark)


@needs_browser
def test_two_models(tmp_path: Path) -> None:
    before, after = layered(3, 8), layered(3, 8)
    node = after.graph[8 + 3]
    node.op_type = "Hardmax"
    result = played(
        page_of(after, "after.onnx", before=(before, "before.onnx")),
        tmp_path,
        """
        const title = $('#title').textContent, deltas = texts('#tree .row:first-child .delta');
        const told = $('#details').textContent;
        search('is:removed');
        return { title, deltas, told, removed: texts('#results .label') };
        """,
    )
    assert result["title"] == "before.onnx → after.onnx"
    assert result["deltas"] == ["+1", "−1", "~1"]
    assert "1 added, 1 removed, 1 changed" in result["told"]
    assert result["removed"] == ["Softmax"]


@needs_browser
def test_names_with_markup_are_shown(tmp_path: Path) -> None:
    result = played(
        page_of(hostile(), "x<b>y</b>"),
        tmp_path,
        """
        let alerts = 0;
        window.alert = () => { alerts += 1; };
        openTree();
        for (const key of all('#tree .row').map(each => each.dataset.key)) {
          all('#tree .row').find(each => each.dataset.key === key).click();
        }
        search('alert');
        const count = selector => all(selector).length;
        return { alerts, images: count('img'), scripts: count('script'), title: $('#title').textContent,
                 found: count('#results .row') };
        """,
    )
    assert (result["alerts"], result["images"]) == (0, 0)
    assert result["scripts"] == 4  # the page's three, and the one of this test
    assert result["title"] == "x<b>y</b>"
    assert result["found"] == 2

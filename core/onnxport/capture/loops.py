"""What to write in place of a Python loop, or of parts, whose number no graph can follow, by the line."""

from __future__ import annotations

import ast
import linecache
import re
from collections.abc import Iterable

_PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+): (?P<code>.*)")

#: Calls that give as many things as a size says, and unpacked iterables other than shapes.
_MANY = re.compile(
    r"\b(range|zip|enumerate|iter|map|unbind|(tensor_|unsafe_)?split|split_with_sizes|(unsafe_)?chunk)\("
    r"|\b(list|tuple|reversed|sorted)\((?![^()]*\.(shape|size))\w"
    r"|[\[(,]\s*\*(?!\*)(?![^,)\]]*(shape|size))"
    r"|\]\s*\*(?!\*)"
)

LOOP = (
    "Python runs a loop while the model is captured, so a graph has the example's number of steps. Write steps that "
    "need the one before as torch's scan (from torch._higher_order_ops import scan) or torch.while_loop, a recurrent "
    "cell as its layer (nn.RNN, nn.GRU, nn.LSTM), and other steps as one operation on the whole axis (unflatten it "
    "into blocks, or use torch.vmap); or take a fixed number of steps, and a mask of those that count"
)
NUMPY = (
    "NumPy computes with the example's numbers: use torch's function of that name or meaning, which follows the size "
    "(torch.arange, torch.linspace, torch.zeros, torch.eye, torch.hann_window(n, periodic=False))"
)
PARTS = (
    "The number of parts depends on the input, and a graph has a fixed number of them. Work on the whole tensor with a "
    "mask made of the running lengths: torch.searchsorted(lengths.cumsum(0), torch.arange(len(x)), right=True) is the "
    "part of each row, and rows of one part belong together. Or give the lengths a fixed number of rows, with 0 for "
    "those that aren't used"
)


def advice_at(place: str) -> str:
    """What to write at ``file:line: code`` of the model; empty where there is neither a loop nor parts."""
    found = _PLACE.match(place)
    if found is None:
        return ""
    code = found["code"]
    if re.search(r"(?<!torch\.)\b(np|numpy|scipy|signal)\.(?!newaxis|float|int|pi\b)\w", code):
        return NUMPY
    if "split(" in code or "tolist(" in code:
        return f"{PARTS}. {LOOP}"
    return LOOP if _MANY.search(code) or is_repeated(place) else ""


def cure(places: Iterable[str], usual: str) -> str:
    """What to write at lines that make sizes numbers."""
    return ". ".join(dict.fromkeys(advice_at(place) or usual for place in places))


def is_repeated(place: str) -> bool:
    """Whether a line says how often a loop goes on."""
    found = _PLACE.match(place)
    if found is None:
        return False
    line = int(found["line"])
    try:
        tree = ast.parse("".join(linecache.getlines(found["file"])))
    except (SyntaxError, ValueError):  # a cell of a notebook may hold more than Python
        return False
    around = [node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.While)) and _covers(node, line)]
    heads = [node.iter if isinstance(node, ast.For) else node.test for node in around]
    heads += [node.iter for node in ast.walk(tree) if isinstance(node, ast.comprehension)]
    ends = [
        node.test
        for loop in around
        for node in ast.walk(loop)
        if isinstance(node, ast.If) and any(isinstance(n, (ast.Break, ast.Return)) for n in ast.walk(node))
    ]
    return any(_covers(each, line) for each in (*heads, *ends))


def _covers(node: ast.stmt | ast.expr, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)

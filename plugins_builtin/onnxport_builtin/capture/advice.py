"""What to do about a capture that failed: by the error, and by the model's line.

Most lines that no graph can follow are Python loops, or parts, whose number depends on the input.
"""

from __future__ import annotations

import re

from onnxport import DynamicShapesError
from onnxport.kit import is_data_dependent, is_repeated, needs_gradients

from onnxport_builtin.capture.final_errors import has_no_shapes

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
NUMBERS = (
    "NumPy's types, and functions of Python's math that sizes have no operator for, make a number of the example's "
    "size: use the size itself (n in place of np.int64(n)), or compute on a tensor of it "
    "(torch.special.erf(torch.as_tensor(n)))"
)
DUALS = (
    "Dual numbers (torch.autograd.forward_ad) can't be captured in all operators. Write the derivative as "
    "torch.func.jvp(function, (x,), (tangent,)), which can"
)
BATCHED = (
    "torch.vmap reads the batch as a number for an operator of this function (a convolution, a batch or group norm). "
    "Compute on the whole batch, and take the gradient of the sum over it (torch.func.grad(lambda x: f(x).sum())(x), a "
    "Jacobian by one such gradient an output), which is each row's own where rows don't mix"
)
RESIZED = (
    "A quotient of sizes as scale_factor is a number to torch: give the size, interpolate(x, size=y.shape[2:]), or "
    "recompute_scale_factor=True beside it, which follow the sizes"
)
TEXT = (
    "Text is made while the model is captured: compute from the size itself, compare it in torch.where, or "
    "look it up in a tensor"
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
    if re.search(r"(?<!torch\.)\b(np|numpy|scipy|signal)\.(?!newaxis|u?float|u?int|pi\b)\w", code):
        return NUMPY
    if re.search(r"\b(np|numpy)\.u?(int|float)\w*\(|\b(math|cmath|statistics)\.\w+\(", code):
        return NUMBERS
    if re.search(r"\b(interpolate|[Uu]psample\w*)\(.*scale_factor", code):
        return RESIZED
    if re.search(r"""["']\s*%\s*[\w(]""", code):
        return TEXT
    if re.search(r"make_dual|unpack_dual|dual_level", code):
        return DUALS
    if re.search(r"\bvmap\(", code):
        return BATCHED
    if "split(" in code or "tolist(" in code:
        return f"{PARTS}. {LOOP}"
    return LOOP if _MANY.search(code) or is_repeated(place) else ""


def advice(subject: str | Exception, place: str) -> str | None:
    """What to do about a capture that failed, or about a size that a line of the model makes a number."""
    if isinstance(subject, str):
        return None
    if isinstance(subject, DynamicShapesError):
        return advice_at(place) or None
    text = str(subject)
    if getattr(subject, "is_of_the_example", False):
        return "Without an export, the model raises this as well: give example inputs that it takes."
    if (derivatives := advice_at(place)) in (DUALS, BATCHED):
        return f"{derivatives}."
    if is_data_dependent(subject):
        if repeated := advice_at(place):
            return f"The forward repeats something as often as the values of a tensor say. {repeated}."
        return (
            "The forward branches or sizes something on the values of a tensor. Use torch.cond or torch.where for the "
            "branch; for a size, tell torch.export its range with torch._check(...)."
        )
    if needs_gradients(subject):
        return (
            "The forward takes a gradient of what requires none: give an example input that requires it "
            "(x.requires_grad_()), as the model itself needs it, or call x.requires_grad_() in forward."
        )
    if has_no_shapes(subject):
        return "A custom operator has no shape function: register one with torch.library.register_fake."
    for sign, told in _BY_TEXT:
        if sign.search(text):
            return told
    if type(subject).__module__.startswith("torch._dynamo"):
        return "Change the forward as the messages say; torch.export.draft_export(...) lists all obstacles."
    if isinstance(subject, TypeError) and (instead := advice_at(place)):
        return f"{instead}."
    return None


#: What to do by what an error says.
_BY_TEXT = (
    (
        re.compile(r"unhashable type: '?(non-nested )?Sym"),
        "A dynamic size can't be a key of a dict or an element of a set, which a graph hasn't: compare it in "
        "torch.where or torch.cond, look it up in a tensor (table[size]), or leave the axis out of dynamic_shapes.",
    ),
    (
        re.compile(r"^'[^']*\bs\d+\b|(invalid literal|could not convert).*'[^']*\bs\d+\b"),
        "A dynamic size can't be read from a text: use the size itself, or leave the axis out of dynamic_shapes.",
    ),
    (
        re.compile(r"PackedParams|quantized tensor|torch\.ops\.quantized\."),
        "Not all of eager-mode quantization can be exported: quantize with PT2E (torchao.quantization.pt2e) or with "
        "torchao.quantization.quantize_.",
    ),
    (
        re.compile(r"meta.*same device|same device.*meta", re.DOTALL),
        "The model is on the meta device: make the example inputs there, too.",
    ),
    (
        re.compile("not a known type"),
        "The forward returns a class that pytree doesn't know: return a dict or register a Container.",
    ),
)

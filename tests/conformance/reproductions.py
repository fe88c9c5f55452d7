"""What is wrong upstream, in ONNX alone: small models without the exporter, one for each bug and missing kernel.

The file that works around one says so in a comment; a row of ``known.csv`` of the class ``onnxruntime`` names one in
its reason. ``test_reproductions.py`` asserts that the installed onnxruntime and onnx still have each: when one is
fixed, the test says which workaround can go.

``python tests/conformance/reproductions.py`` prints what each gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.reference
import onnx.shape_inference
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

BIG = np.array([[2**62 + 1, 3, -(2**61) + 5], [2**53 + 1, 2**60 - 1, 7]], np.int64)
NAN = np.float32("nan")


@dataclass(frozen=True)
class Bug:
    """One bug.

    Attributes:
        name: what ``known.csv`` and the test call it.
        where: the file that works around it, relative to the repository.
        is_there: runs the model; True while upstream has the bug.
    """

    name: str
    where: str
    is_there: Callable[[], bool]


BUGS: dict[str, Bug] = {}


def _path(where: str) -> str:
    return where if "/" in where else f"plugins_builtin/onnxport_builtin/aten/{where}"


def bug(where: str) -> Callable[[Callable[[], bool]], Callable[[], bool]]:
    """Register a reproduction; ``where`` is a family of built-in operators, or a path."""

    def register(function: Callable[[], bool]) -> Callable[[], bool]:
        BUGS[function.__name__] = Bug(function.__name__, _path(where), function)
        return function

    return register


# Models --------------------------------------------------------------------------------------------------------------


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[np.ndarray],
    constants: dict[str, np.ndarray] | None = None,
    *,
    output: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
) -> onnx.ModelProto:
    """A checked model of those nodes: inputs ``x0``, ``x1``..., outputs of the element type ``output``."""
    given = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for i, array in enumerate(inputs)
    ]
    results = [helper.make_tensor_value_info(name, output, None) for name in outputs]  # of any shape
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "reproduction", given, results, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9 if opset < 23 else 11)
    made = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    onnx.checker.check_model(made)
    return made


def run(made: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs on onnxruntime's CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {f"x{i}": array for i, array in enumerate(inputs)}))


def one(operator: str, *inputs: Any, output: int = TensorProto.FLOAT, opset: int = 20, **attributes: Any) -> np.ndarray:
    """The first output of one node on onnxruntime; its first input is the model's, the others are constants."""
    x, *others = (np.asarray(value) for value in inputs)
    constants = {f"c{i}": array for i, array in enumerate(others)}
    node = helper.make_node(operator, ["x0", *constants], ["y"], **attributes)
    return run(model([node], [x], constants, output=output, opset=opset), [x])[0]


def _fails(function: Callable[[], Any]) -> bool:
    try:
        function()
    except Exception:  # each library has classes of its own for it
        return True
    return False


# Wrong results of onnxruntime ----------------------------------------------------------------------------------------


@bug("whole_numbers.py")
def reduce_sum_of_int64() -> bool:
    """It is computed in doubles."""
    return not np.array_equal(one("ReduceSum", BIG, np.array([1]), output=TensorProto.INT64, keepdims=0), BIG.sum(1))


@bug("whole_numbers.py")
def reduce_prod_of_int64() -> bool:
    """It is computed in doubles."""
    return not np.array_equal(one("ReduceProd", BIG, np.array([1]), output=TensorProto.INT64, keepdims=0), BIG.prod(1))


@bug("matmul.py")
def einsum_of_int64() -> bool:
    """Its sums are ReduceSum's."""
    return not np.array_equal(one("Einsum", BIG, output=TensorProto.INT64, equation="ij->i"), BIG.sum(1))


@bug("reduction.py")
def reduce_max_of_nan() -> bool:
    """A NaN before larger numbers is lost."""
    x = np.array([[1, NAN, 3, 5, 2, 9, 7, 4, 6]], np.float32)
    return not np.isnan(one("ReduceMax", x, np.array([1]), keepdims=0)).all()


@bug("reduction.py")
def arg_max_of_nan() -> bool:
    """It is the place of the largest number; numpy and torch give that of the NaN."""
    return int(one("ArgMax", np.array([1, NAN, 3], np.float32), output=TensorProto.INT64, axis=0, keepdims=0)) != 1


@bug("random.py")
def bernoulli_of_complement() -> bool:
    """1 is drawn with the probability 1 - p."""
    return float(one("Bernoulli", np.full(4000, 0.9, np.float32), seed=1.0).mean()) < 0.5


@bug("random.py")
def dropout_in_training_mode_removed() -> bool:
    """A Dropout of a result whose mask nobody reads is optimized away, training mode or not."""
    nodes = [
        helper.make_node("Neg", ["x0"], ["a"]),
        helper.make_node("Dropout", ["a", "ratio", "training"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    x = np.ones(1000, np.float32)
    constants = {"ratio": np.array(0.5, np.float32), "training": np.array(True)}
    return bool((run(model(nodes, [x], constants), [x])[0] == 1).all())


@bug("activation.py")
def log_softmax_of_float64_beside_nan() -> bool:
    """A NaN in one row changes another."""
    x = np.array([[1.0, 2.0, np.inf], [1.0, 2.0, 3.0]])
    found = one("LogSoftmax", x, output=TensorProto.DOUBLE, axis=-1)
    with np.errstate(invalid="ignore"):
        shifted = x - x.max(-1, keepdims=True)
        wanted = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return not np.allclose(found, wanted, equal_nan=True)


@bug("scatter.py")
def scatter_max_forgets_nan() -> bool:
    """A number written after a NaN replaces it."""
    updates = np.array([NAN, 1.0], np.float32)
    found = one("ScatterElements", np.zeros(1, np.float32), np.array([0, 0]), updates, axis=0, reduction="max")
    return not np.isnan(found[0])


@bug("fft.py")
def dft_of_float32() -> bool:
    """A transform of 1000 points, which is no power of two, is wrong in the fourth digit."""
    x = np.random.default_rng(0).standard_normal((1, 1000, 1)).astype(np.float32)
    found = one("DFT", x)
    wanted = np.fft.fft(x[0, :, 0].astype(np.float64))
    error = np.abs(found[0, :, 0] + 1j * found[0, :, 1] - wanted).max() / np.abs(wanted).max()
    return bool(error > 2e-5)


@bug("kernels.py")
def pow_of_int64() -> bool:
    """It goes through doubles."""
    x = np.array([3**19 + 2])
    return int(one("Pow", x, np.array([2]), output=TensorProto.INT64)[0]) != (3**19 + 2) ** 2


@bug("transcendental.py")
def sigmoid_of_float64() -> bool:
    """It is computed by tanh, so that what is below -37 becomes 0."""
    return float(one("Sigmoid", np.array([-40.0]), output=TensorProto.DOUBLE)[0]) == 0


# Refused by onnxruntime ----------------------------------------------------------------------------------------------


@bug("scan.py")
def scan_over_nothing() -> bool:
    """An axis of size 0 is refused."""
    item = helper.make_tensor_value_info("item", TensorProto.FLOAT, [])
    state = helper.make_tensor_value_info("state", TensorProto.FLOAT, [])
    after = helper.make_tensor_value_info("after", TensorProto.FLOAT, [])
    body = helper.make_graph([helper.make_node("Add", ["state", "item"], ["after"])], "body", [state, item], [after])
    node = helper.make_node("Scan", ["start", "x0"], ["y"], body=body, num_scan_inputs=1)
    x = np.zeros(0, np.float32)
    return _fails(lambda: run(model([node], [x], {"start": np.array(0, np.float32)}), [x]))


@bug("pooling.py")
def pads_as_wide_as_the_kernel() -> bool:
    """Pooling refuses them, though ONNX allows them."""
    return _fails(lambda: one("MaxPool", np.zeros((1, 1, 6), np.float32), kernel_shape=[2], pads=[0, 2], strides=[2]))


@bug("convolution.py")
def output_padding_as_wide_as_the_stride() -> bool:
    """ConvTranspose refuses it, though a dilation makes sense of it."""
    x, weight = np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 3), np.float32)
    return _fails(lambda: one("ConvTranspose", x, weight, dilations=[3], strides=[2], output_padding=[2]))


def _missing(where: str, name: str, operator: str, *inputs: Any, **attributes: Any) -> None:
    """A kernel for an element type that the operator is defined for."""

    def is_there() -> bool:
        try:
            one(operator, *inputs, **attributes)
        except Exception as error:
            return "NOT_IMPLEMENTED" in str(error)
        return False

    BUGS[name] = Bug(name, _path(where), is_there)


_INT16 = np.array([1, 2, 3], np.int16)
_DOUBLES = np.array([0.5, 0.25], np.float64)
_missing("padding.py", "pad_of_int16", "Pad", _INT16, np.array([1, 1]), output=TensorProto.INT16)
_missing("kernels.py", "where_of_int16", "Where", _INT16 > 1, _INT16, _INT16, output=TensorProto.INT16)
_missing("kernels.py", "max_of_int16", "Max", _INT16, _INT16, output=TensorProto.INT16)
_missing("diagonals.py", "trilu_of_uint8", "Trilu", np.ones((2, 2), np.uint8), output=TensorProto.UINT8)
_missing("special.py", "erf_of_float64", "Erf", _DOUBLES, output=TensorProto.DOUBLE)
_missing("kernels.py", "tan_of_float64", "Tan", _DOUBLES, output=TensorProto.DOUBLE)
_missing("kernels.py", "acos_of_float64", "Acos", _DOUBLES, output=TensorProto.DOUBLE)
_missing("activation.py", "gelu_of_float64", "Gelu", _DOUBLES, output=TensorProto.DOUBLE)
_missing("loss.py", "softplus_of_float64", "Softplus", _DOUBLES, output=TensorProto.DOUBLE, opset=22)
_missing("indexing.py", "nonzero_of_float64", "NonZero", _DOUBLES, output=TensorProto.INT64)
_missing("sets.py", "unique_of_uint8", "Unique", np.array([1, 1], np.uint8), output=TensorProto.UINT8)
_missing("creation.py", "eye_like_of_uint8", "EyeLike", np.ones((2, 2), np.uint8), output=TensorProto.UINT8)
_missing(
    "convolution.py",
    "conv_of_float64",
    "Conv",
    np.ones((1, 1, 3), np.float64),
    np.ones((1, 1, 2), np.float64),
    output=TensorProto.DOUBLE,
)
_missing(
    "shape.py",
    "depth_to_space_of_int64",
    "DepthToSpace",
    np.ones((1, 4, 1, 1), np.int64),
    output=TensorProto.INT64,
    blocksize=2,
)


# ONNX's reference implementation -------------------------------------------------------------------------------------


def reference(made: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs on ``onnx.reference``."""
    evaluator = onnx.reference.ReferenceEvaluator(made)
    return list(evaluator.run(None, {f"x{i}": array for i, array in enumerate(inputs)}))


_GRID = "tests/conformance/grid.py"


@bug(_GRID)
def reference_pad_by_less_than_nothing() -> bool:
    """Pad takes no negative pads, which ONNX says remove elements."""
    x = np.arange(4, dtype=np.float32)
    made = model([helper.make_node("Pad", ["x0", "pads"], ["y"])], [x], {"pads": np.array([-1, 0])})
    return _fails(lambda: reference(made, [x]))


@bug(_GRID)
def reference_scan_of_another_axis() -> bool:
    """Scan takes axis 0 only."""
    x = np.ones((2, 3), np.float32)
    pair = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("state", "item", "after")]
    body = helper.make_graph([helper.make_node("Add", ["state", "item"], ["after"])], "body", pair[:2], pair[2:])
    node = helper.make_node("Scan", ["start", "x0"], ["y"], body=body, num_scan_inputs=1, scan_input_axes=[1])
    made = model([node], [x], {"start": np.zeros(2, np.float32)})
    return _fails(lambda: reference(made, [x]))


@bug(_GRID)
def reference_gather_elements_of_many() -> bool:
    """GatherElements takes at most 64 elements along its axis (numpy's choose)."""
    x, index = np.zeros((65, 1), np.float32), np.zeros((1, 1), np.int64)
    made = model([helper.make_node("GatherElements", ["x0", "x1"], ["y"], axis=0)], [x, index])
    return _fails(lambda: reference(made, [x, index]))


@bug(_GRID)
def reference_random_of_a_scalar() -> bool:
    """RandomUniformLike takes no 0-d tensor: numpy gives a number for it."""
    x = np.array(1.0, np.float32)
    made = model([helper.make_node("RandomUniformLike", ["x0"], ["y"])], [x])
    return _fails(lambda: reference(made, [x]))


@bug(_GRID)
def reference_dropout_of_bfloat16() -> bool:
    """Dropout gives float32 for bfloat16, which the next operator refuses."""
    x = np.ones(3, ml_dtypes.bfloat16)
    nodes = [
        helper.make_node("Dropout", ["x0", "ratio", "training"], ["a"]),
        helper.make_node("Mul", ["a", "x0"], ["y"]),
    ]
    constants = {"ratio": np.array(0.5, np.float32), "training": np.array(True)}
    made = model(nodes, [x], constants, output=TensorProto.BFLOAT16, opset=22)
    return _fails(lambda: reference(made, [x]))


if __name__ == "__main__":
    for each in BUGS.values():
        print(f"{each.name:40} {'still there' if each.is_there() else 'FIXED'}  ({each.where})")

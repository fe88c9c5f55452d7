"""What translations may import: small steps that they are made of, each with its home."""

from onnxport_builtin.aten.kernels import as_float as as_float
from onnxport_builtin.aten.kernels import choose as choose
from onnxport_builtin.aten.kernels import in_float32 as in_float32
from onnxport_builtin.aten.kernels import in_float64 as in_float64
from onnxport_builtin.aten.kernels import maximum as maximum
from onnxport_builtin.aten.kernels import minimum as minimum
from onnxport_builtin.aten.kernels import operands as operands
from onnxport_builtin.steps import Dim as Dim
from onnxport_builtin.steps import axis_of as axis_of
from onnxport_builtin.steps import broadcast_shape as broadcast_shape
from onnxport_builtin.steps import expand as expand
from onnxport_builtin.steps import filled as filled
from onnxport_builtin.steps import flat as flat
from onnxport_builtin.steps import iota as iota
from onnxport_builtin.steps import is_static as is_static
from onnxport_builtin.steps import is_used as is_used
from onnxport_builtin.steps import may_be_one as may_be_one
from onnxport_builtin.steps import may_be_zero as may_be_zero
from onnxport_builtin.steps import move_axes as move_axes
from onnxport_builtin.steps import permute as permute
from onnxport_builtin.steps import product as product
from onnxport_builtin.steps import reshape as reshape
from onnxport_builtin.steps import static as static
from onnxport_builtin.steps import unsqueeze as unsqueeze

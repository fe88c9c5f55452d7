"""What passes may import: small steps that they are made of, each with its home."""

from onnxport_builtin.rewriting import QUANTIZED as QUANTIZED
from onnxport_builtin.rewriting import RANDOM as RANDOM
from onnxport_builtin.rewriting import Constants as Constants
from onnxport_builtin.rewriting import add_constant as add_constant
from onnxport_builtin.rewriting import add_initializer as add_initializer
from onnxport_builtin.rewriting import all_nodes as all_nodes
from onnxport_builtin.rewriting import attribute as attribute
from onnxport_builtin.rewriting import bodies as bodies
from onnxport_builtin.rewriting import calls_by_function as calls_by_function
from onnxport_builtin.rewriting import constant as constant
from onnxport_builtin.rewriting import forward as forward
from onnxport_builtin.rewriting import has_references as has_references
from onnxport_builtin.rewriting import is_standard as is_standard
from onnxport_builtin.rewriting import remove_if_unused as remove_if_unused
from onnxport_builtin.rewriting import same_dims as same_dims
from onnxport_builtin.rewriting import sole_use as sole_use
from onnxport_builtin.rewriting import stored as stored
from onnxport_builtin.rewriting import values_of as values_of

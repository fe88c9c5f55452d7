"""For tests of translations and packs: each name with its home."""

from onnxport_testing.comparing import TOLERANCES as TOLERANCES
from onnxport_testing.comparing import FunctionModule as FunctionModule
from onnxport_testing.comparing import as_module as as_module
from onnxport_testing.comparing import compare_with_eager as compare_with_eager
from onnxport_testing.comparing import expect_equal as expect_equal
from onnxport_testing.comparing import flat_tensors as flat_tensors
from onnxport_testing.exporting import Case as Case
from onnxport_testing.exporting import Served as Served
from onnxport_testing.exporting import expect_refused as expect_refused
from onnxport_testing.exporting import expect_served as expect_served
from onnxport_testing.exporting import exported as exported
from onnxport_testing.goldens import expect_node_counts as expect_node_counts
from onnxport_testing.goldens import node_counts as node_counts

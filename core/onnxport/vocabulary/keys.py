"""Keys of the metadata that files and models carry, each written here once.

Those under ``pkg.torch`` are the keys of torch's exporter, whose readers go by them.
"""

from __future__ import annotations

# Of values -----------------------------------------------------------------------------------------------------------

ORIGIN = "pkg.torch.onnx.original_node_name"
"""The FX node that a value stands for."""
RESULT_INDEX = "onnxport.result_index"
"""Which of the FX node's results a value is, where it has several."""
COMPLEX = "onnxport.complex"
"""``"1"`` where an input or output is a complex tensor with a last axis of 2."""
FOLDED_FROM = "onnxport.folded_from"
"""Of an initializer that has a weight's name and another value: the weights that it was computed from."""

_SIGNATURE = "pkg.torch.export.graph_signature"
INPUT_KIND = f"{_SIGNATURE}.InputSpec.kind"
"""What an input or initializer is to the exported program, as ``InputKind`` names it."""
INPUT_PERSISTENT = f"{_SIGNATURE}.InputSpec.persistent"
"""Whether a buffer is in the state dict."""
OUTPUT_KIND = f"{_SIGNATURE}.OutputSpec.kind"
"""What an output is to the exported program, as ``OutputKind`` names it."""
OUTPUT_TARGET = f"{_SIGNATURE}.OutputSpec.target"
"""The buffer or input that an output is the new value of."""

# Of nodes ------------------------------------------------------------------------------------------------------------

CLASSES = "pkg.torch.onnx.class_hierarchy"
"""The classes of the modules around a node, outermost first, and its target."""
SCOPES = "pkg.torch.onnx.name_scopes"
"""The paths of the modules around a node, outermost first, and its name."""
FX_NODE = "pkg.torch.onnx.fx_node"
"""The FX node as text."""
STACK_TRACE = "pkg.torch.onnx.stack_trace"
"""The lines of the model that made a node."""
PLUGIN = "onnxport.plugin"
"""The plugin that translated a node."""
TRANSLATION = "onnxport.translation"
"""The function that translated a node."""

# Of models -----------------------------------------------------------------------------------------------------------

PROGRAM_SIGNATURE = "pkg.torch.export.ExportedProgram.graph_signature"
"""The signature of the exported program, as text."""
RANGE_CONSTRAINTS = "pkg.torch.export.ExportedProgram.range_constraints"
"""The ranges of its symbolic sizes, as text."""
DTYPE = "onnxport.dtype"
"""The dtype in which a model of float32 was written: ``float16`` or ``bfloat16``; of an input or output, its own before
that."""
RUNTIME = "onnxport.runtime"
"""The profile that a model was written for, if it isn't the standard alone."""

# Of models in memory (``ir.Model.meta``) -----------------------------------------------------------------------------

TRANSLATED = "onnxport.translated_graph"
"""The FX graph module that the model was translated from."""
FOLDED = "onnxport.folded_weights"
"""State-dict names whose values went into constants of the model at export time."""

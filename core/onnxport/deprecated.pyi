"""Parameters of ``torch.onnx.export`` that ``onnxport.export`` takes, warns about, and doesn't use.

For type checkers, which find a misspelt parameter by it. ``settings.py`` has what to use in their place.
"""

from typing import Any, TypedDict

from typing_extensions import Unpack as Unpack

class Deprecated(TypedDict, total=False):
    training: Any
    operator_export_type: Any
    do_constant_folding: Any
    custom_opsets: Any
    export_modules_as_functions: Any
    autograd_inlining: Any

"""onnxport exports PyTorch models to ONNX; every operator is served by a plugin.

Users call :func:`export`, :func:`check` and :func:`verify`; authors of op packs use :func:`translation`,
:class:`Unsupported` and the hooks of :data:`hookimpl`. Names are loaded when first asked for, so that importing the
package costs little more than importing torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

_HOME = {
    "ArgumentError": "errors",
    "Attempt": "errors",
    "CaptureError": "errors",
    "DynamicAxis": "errors",
    "DynamicShapesError": "errors",
    "FileError": "errors",
    "InputError": "errors",
    "MissingFileError": "errors",
    "MutationError": "errors",
    "NamesError": "errors",
    "OnnxExporterError": "errors",
    "OpsetError": "errors",
    "PluginConflictError": "errors",
    "PluginError": "errors",
    "Refusal": "errors",
    "SaveError": "errors",
    "TableError": "errors",
    "TranslationError": "errors",
    "Unsupported": "errors",
    "UnsupportedOperatorsError": "errors",
    "VerificationError": "errors",
    "WeightError": "errors",
    "Builder": "emit.builder",
    "CheckResult": "run",
    "Container": "host.hookspecs",
    "Deferred": "host.records",
    "DataType": "vocabulary.dtypes",
    "ExportableModule": "exportable",
    "MismatchResult": "onnxport_workbench.find_mismatch",
    "ONNXProgram": "program.onnx_program",
    "Pass": "host.hookspecs",
    "Profile": "host.profiles",
    "Size": "emit.symbols",
    "Tensor": "emit.tensor",
    "Translation": "host.records",
    "VerificationResult": "onnxport_workbench.verify",
    "as_torch_onnx": "onnxport_workbench.torch_onnx",
    "check": "export",
    "collect": "host.records",
    "component_dtype": "vocabulary.dtypes",
    "export": "export",
    "find_mismatch": "onnxport_workbench.find_mismatch",
    "hookimpl": "host.hookspecs",
    "infer_dynamic_shapes": "onnxport_workbench.infer_shapes",
    "is_in_onnx_export": "capture.attempts",
    "note": "vocabulary.notes",
    "onnx_dtype": "vocabulary.dtypes",
    "promote": "vocabulary.dtypes",
    "translation": "host.records",
    "verify": "onnxport_workbench.verify",
    "warn": "vocabulary.callers",
}

if TYPE_CHECKING:
    from onnxport_workbench.find_mismatch import MismatchResult, find_mismatch
    from onnxport_workbench.infer_shapes import infer_dynamic_shapes
    from onnxport_workbench.torch_onnx import as_torch_onnx
    from onnxport_workbench.verify import VerificationResult, verify

    from onnxport.capture.attempts import is_in_onnx_export
    from onnxport.emit.builder import Builder
    from onnxport.emit.symbols import Size
    from onnxport.emit.tensor import Tensor
    from onnxport.errors import (
        ArgumentError,
        Attempt,
        CaptureError,
        DynamicAxis,
        DynamicShapesError,
        FileError,
        InputError,
        MissingFileError,
        MutationError,
        NamesError,
        OnnxExporterError,
        OpsetError,
        PluginConflictError,
        PluginError,
        Refusal,
        SaveError,
        TableError,
        TranslationError,
        Unsupported,
        UnsupportedOperatorsError,
        VerificationError,
        WeightError,
    )
    from onnxport.export import check, export
    from onnxport.exportable import ExportableModule
    from onnxport.host.hookspecs import Container, Pass, hookimpl
    from onnxport.host.profiles import Profile
    from onnxport.host.records import Deferred, Translation, collect, translation
    from onnxport.program.onnx_program import ONNXProgram
    from onnxport.run import CheckResult
    from onnxport.vocabulary.callers import warn
    from onnxport.vocabulary.dtypes import DataType, component_dtype, onnx_dtype, promote
    from onnxport.vocabulary.notes import note

__all__ = [
    "ArgumentError",
    "Attempt",
    "Builder",
    "CaptureError",
    "CheckResult",
    "Container",
    "DataType",
    "Deferred",
    "DynamicAxis",
    "DynamicShapesError",
    "ExportableModule",
    "FileError",
    "InputError",
    "MismatchResult",
    "MissingFileError",
    "MutationError",
    "NamesError",
    "ONNXProgram",
    "OnnxExporterError",
    "OpsetError",
    "Pass",
    "PluginConflictError",
    "PluginError",
    "Profile",
    "Refusal",
    "SaveError",
    "Size",
    "TableError",
    "Tensor",
    "Translation",
    "TranslationError",
    "Unsupported",
    "UnsupportedOperatorsError",
    "VerificationError",
    "VerificationResult",
    "WeightError",
    "as_torch_onnx",
    "check",
    "collect",
    "component_dtype",
    "export",
    "find_mismatch",
    "hookimpl",
    "infer_dynamic_shapes",
    "is_in_onnx_export",
    "note",
    "onnx_dtype",
    "promote",
    "translation",
    "verify",
    "warn",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'onnxport' has no attribute {name!r}")
    value = getattr(importlib.import_module(home if home.startswith("onnxport_") else f"onnxport.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``onnxport.export`` and ``onnxport.verify`` the functions, though modules of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in _HOME):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

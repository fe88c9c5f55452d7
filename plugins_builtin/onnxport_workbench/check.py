"""`check`: everything that keeps a model from being exported or run, told at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from onnxport import Refusal
from onnxport.kit import (
    Conflict,
    Run,
    Settings,
    call_for,
    capture_model,
    classes_of,
    load,
    plain,
    translate_program,
    uncompiled,
)
from torch.export import ExportedProgram

from onnxport_workbench.memory_estimate import MemoryEstimate, memory_of


@dataclass
class CheckResult:
    """The result of :func:`check`.

    Attributes:
        refusals: operators that can't be translated, each with its count, places, reasons and what would serve it.
        operators: number of calls of each operator that is translated.
        decomposed: number of calls of each operator that is expanded by a decomposition.
        missing_kernels: ONNX operators that the runtime can't run with these types; without a runtime, that onnxruntime
            can't run on the CPU, or not on CUDA.
        runtime: the profile that was asked for.
        conflicts: operators that plugins of equal rank translate, which an export refuses until one is preferred.
        memory: bytes of the model's weights, and of its values at the sizes of the example.
    """

    refusals: list[Refusal]
    operators: dict[str, int] = field(default_factory=dict)
    decomposed: dict[str, int] = field(default_factory=dict)
    missing_kernels: list[Any] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    runtime: str = "onnx"
    memory: MemoryEstimate = field(default_factory=MemoryEstimate)

    @property
    def passed(self) -> bool:
        """Nothing is refused, and no plugins are in conflict: the model can be exported."""
        return not self.refusals and not self.conflicts

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON takes it."""
        return {
            "passed": self.passed,
            "refusals": [vars(refusal) for refusal in self.refusals],
            "runtime": self.runtime,
            "operators": self.operators,
            "decomposed": self.decomposed,
            "missing_kernels": [vars(missing) for missing in self.missing_kernels],
            "conflicts": [conflict.as_dict() for conflict in self.conflicts],
            "memory": self.memory.as_dict(),
        }

    def to_json(self) -> str:
        """The result as JSON text."""
        return json.dumps(self.as_dict(), indent=2)

    def _repr_html_(self) -> Any:
        return load().hooks.call("onnxport_html", subject=self)

    def __str__(self) -> str:
        lines = [str(found) for found in (*self.refusals, *self.conflicts)]
        if self.passed:
            lines = [f"Every operator can be translated ({sum(self.operators.values())} calls)."]
        if self.runtime != "onnx" and not self.missing_kernels:
            lines.append(f"{self.runtime}: no node is known that it doesn't take.")
        for provider in dict.fromkeys(missing.provider for missing in self.missing_kernels):
            found = [missing for missing in self.missing_kernels if missing.provider == provider]
            lines.append(getattr(found[0], "title", "") or f"onnxruntime's {provider} has no kernel for:")
            lines += [f"  {missing}" for missing in found]
        return plain("\n".join(lines))


def check(
    model: torch.nn.Module | ExportedProgram,
    args: tuple[Any, ...] = (),
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    opset_version: int | None = None,
    custom_translation_table: Mapping[Callable[..., Any], Any] | None = None,
    plugins: Sequence[Any] | None = None,
    functions: Sequence[type[torch.nn.Module] | str] = (),
    runtime: str = "onnx",
    prefer: Mapping[Any, str] | None = None,
) -> CheckResult:
    """Find everything in a model that can't be exported, without building a model.

    Takes the arguments of :func:`export` that matter for it. Weights may be fake or on the meta device, and onnxruntime
    need not be installed.

    Returns:
        All refusals and conflicts of plugins, none when the model can be exported; and what the runtime has no kernel
        for: that of ``runtime``, or onnxruntime where it is left out.

    Raises:
        OnnxExporterError: the model can't even be captured, or the arguments are bad.
    """
    opset, call = call_for(opset_version, custom_translation_table, plugins, prefer, runtime)
    call.plugins.ir_passes(call.profile.name)  # which says where one can't be placed
    registry = call.registry.collecting()
    settings = Settings(opset, call, registry, functions=classes_of(functions))
    model = uncompiled(model)
    run = Run()
    _, captured = capture_model(run, settings, model, args, kwargs, dynamic_shapes, None, None, None)
    translated = translate_program(captured, settings, run)
    operators: dict[str, int] = {}
    for (operator, *_), count in translated.served.items():
        operators[operator] = operators.get(operator, 0) + count
    looks = call.plugins.items("onnxport_check")
    lacking = [found for look in looks for found in look(translated.model, call.profile)]
    conflicts = list((registry.conflicts or {}).values())
    served, memory = dict(translated.decomposed), memory_of(captured.program)
    return CheckResult(translated.refusals, operators, served, lacking, conflicts, call.profile.name, memory)

"""``export()``: the pipeline on one screen.

model, args -> capture -> functionalize -> fold constants -> translate -> passes -> ONNXProgram -> save, verify, report
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch.export import ExportedProgram

from onnxport.capture.captured import Captured, Interface
from onnxport.capture.request import Request
from onnxport.emit.weights import initializers_of
from onnxport.errors import InputError, MutationError
from onnxport.functional.passes import with_passes, with_program_passes
from onnxport.functional.program import Folded, FunctionalProgram, chosen_functionalizer, folded_weights
from onnxport.host.call import Call
from onnxport.optimize import pipeline
from onnxport.program.onnx_program import ONNXProgram
from onnxport.records.semantics import using
from onnxport.run import Run
from onnxport.settings import Mutation, Settings, call_for
from onnxport.translate.model import Names, Translated
from onnxport.translate.overrides import Overrides
from onnxport.translate.walk import Translator
from onnxport.vocabulary import keys
from onnxport.vocabulary.callers import warn
from onnxport.vocabulary.provenance import Level
from onnxport.vocabulary.tracing import TRACING
from onnxport.vocabulary.upstream import uncompiled, unset_fake_temporarily, without_autocast

if TYPE_CHECKING:
    # A stub: names that type checkers know, so that they find others.
    from onnxport.deprecated import Deprecated, Unpack


def export(
    model: torch.nn.Module | ExportedProgram,
    args: tuple[Any, ...] = (),
    f: str | os.PathLike[str] | IO[bytes] | None = None,
    *,
    kwargs: dict[str, Any] | None = None,
    verbose: bool | Callable[[str], None] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamo: bool = True,
    external_data: bool = True,
    dynamic_shapes: Any = None,
    custom_translation_table: Mapping[Callable[..., Any], Any] | None = None,
    report: bool = False,
    optimize: bool = True,
    verify: bool = False,
    profile: bool = False,
    dump_exported_program: bool = False,
    artifacts_dir: str | os.PathLike[str] = ".",
    export_params: bool = True,
    keep_initializers_as_inputs: bool = False,
    dynamic_axes: Mapping[str, Any] | None = None,
    plugins: Sequence[Any] | None = None,
    mutation: Mutation = "outputs",
    functions: Sequence[type[torch.nn.Module] | str] = (),
    metadata: Level = "full",
    seed: int | None = None,
    runtime: str = "onnx",
    portable: bool = False,
    prefer: Mapping[Any, str] | None = None,
    quantize: Any = None,
    dtype: Any = None,
    keep: Mapping[str, Any] | None = None,
    keep_io: bool = False,
    **deprecated: Unpack[Deprecated],
) -> ONNXProgram:
    """Export a model to ONNX.

    Args:
        model: a module in eval mode, an ``ExportableModule``, or an ``ExportedProgram``, which is taken as it is.
        args: example positional inputs. Tensors become inputs of the ONNX model, everything else is baked in.
        f: where to save the model: a path or a binary file open for writing; nothing is written when left out.
        kwargs: example keyword inputs.
        verbose: None shows the step and the time on a terminal and in a notebook; True prints the stages and the
            resolved dimensions; False shows nothing; a function is called with each stage's name.
        input_names: names of the ONNX inputs, in order.
        output_names: names of the ONNX outputs, in order.
        opset_version: target opset of the default domain, 13 to the newest that onnx knows; 20 when left out.
        dynamo: must be True; there is no other exporter here.
        external_data: with a path as ``f``, save the weights to a file of their own beside it.
        dynamic_shapes: what ``torch.export.export`` takes, with strings allowed as dimension names.
        custom_translation_table: ``{torch.ops.ns.op.overload: function or sequence of functions}``.
        report: write a markdown report and its JSON twin to ``artifacts_dir``.
        optimize: run the graph passes.
        verify: check the model and compare its outputs with the model's own. Nothing is saved where they differ: the
            error's ``program`` is what would have been.
        profile: print the time and memory of each stage, and write them to ``artifacts_dir``.
        dump_exported_program: save the captured program to ``artifacts_dir``.
        artifacts_dir: where reports go.
        export_params: with ``f``, write the weights.
        keep_initializers_as_inputs: with ``f``, list the weights among the inputs.
        dynamic_axes: deprecated form of ``dynamic_shapes``.
        plugins: which op packs take part: None for all that are installed, names, or ``()`` for the built-ins alone.
        mutation: what becomes of buffers and inputs that forward changes: ``"outputs"`` appends their new values as
            outputs, ``"error"`` refuses, ``"drop"`` warns and drops them.
        functions: module classes, or their qualified names, whose calls become calls of ONNX local functions.
        metadata: how much provenance is written: ``"full"``, ``"module"`` or ``"none"``.
        seed: seed of the random nodes of the file.
        runtime: the profile of the runtime that the file is for, such as ``"onnxruntime-cpu"`` of the pack
            onnxport-onnxruntime; ``"onnx"`` is the standard alone, which every runtime takes.
        portable: with ``runtime``, write operators that aren't ONNX's own as functions with a body of the standard, so
            that other runtimes take the file too.
        prefer: the plugin that goes first for an operator, such as ``{"aten::gelu": "mypack"}``: it settles a conflict
            of two packs, as the order of ``plugins`` does.
        quantize: round the weights of products: ``"int4"``, ``"int8"``, a ``WeightFormat``, or a dict of these by the
            names of weights or modules, such as ``{"lm_head": None, "*": "int4"}``.
        dtype: ``"float16"`` or ``"bfloat16"``: write the float32 model in half precision. Norms, exponentials and sums
            are computed in float32, the example inputs are run to find what is too large for float16, and inputs and
            outputs have the dtype too.
        keep: with ``dtype``, what stays in float32: ``{"lm_head": "float32"}``, by path of a module (a glob may match
            several) or name of an operator (``"aten::exp"``).
        keep_io: with ``dtype``, inputs and outputs stay in float32.
        deprecated: what ``torch.onnx.export`` still takes and warns about.

    Returns:
        The ONNX program, whether or not it was saved.

    Raises:
        OnnxExporterError: one of its subclasses, which name what can't be exported, where and why.
    """
    asked = dict(locals())  # what a report tells of the call
    model = uncompiled(model)  # of torch.compile, whose forward takes *args
    half = {"dtype": dtype, "keep": keep, "keep_io": keep_io}
    wanted = {
        "dtype": half if any(v is not None and v is not False for v in half.values()) else None,
        "quantize": quantize,
    }
    opset, call = call_for(opset_version, custom_translation_table, plugins, prefer, runtime, portable, wanted, model)
    classes = call.plugins.act("check_call", export, asked)
    settings = Settings(opset, call, call.registry, mutation, metadata, optimize, seed, classes)
    if f is not None:
        external_data = call.plugins.act("check_destination", f, external_data)  # now, and not after an hour
    verifier = _verifier(call) if verify else None  # which is refused before the capture
    run = Run(artifacts=Path(artifacts_dir), asked=asked)
    try:
        for start in call.plugins.items("onnxport_before_export"):
            start(run)
        request, captured = capture_model(
            run, settings, model, args, kwargs, dynamic_shapes, dynamic_axes, input_names, output_names
        )
        if dump_exported_program:
            run.dump(captured.program)
        translated = translate_program(captured, settings, run)
        translated.expect_complete()
        # What traces nodes again may fix sizes: a vmap's linear does in torch 2.11.
        call.plugins.act("check_dynamic", captured.program, request)
        passes = call.plugins.ir_passes if optimize else call.plugins.required_passes
        stage = run.stage("optimize") if optimize else contextlib.nullcontext()
        with stage, _without_collection(), unset_fake_temporarily():
            run.passes |= pipeline.optimize(translated.model, passes(call.profile.name))
        run.program = onnx_program = ONNXProgram(translated.model, captured.program)
        onnx_program.plugins, onnx_program.profile = call.plugins, call.profile.name
        onnx_program.operators = call.profile.operators
        for parameter, plan in call.conversions.items():
            with run.stage(parameter), unset_fake_temporarily():
                run.conversions[parameter] = plan.apply(onnx_program)
        run.count(translated.model, after=True)
        if verifier is not None:  # before a file is there
            eager = model if isinstance(model, torch.nn.Module) else None
            with run.stage("verify"), onnx_program:
                run.verification = verifier(onnx_program, eager, request.args, request.kwargs)
                run.verification.raise_on_failure(onnx_program)
        if f is not None:
            with run.stage("save"):
                onnx_program.save(
                    f,
                    include_initializers=export_params,
                    keep_initializers_as_inputs=keep_initializers_as_inputs,
                    external_data=external_data,
                )
    except BaseException as error:
        run.error = error
        raise
    finally:
        for follow in call.plugins.items("onnxport_after_export"):
            follow(run, report=report, profile=profile, shown=verbose is None or verbose is True)
    return onnx_program


def capture_model(
    run: Run,
    settings: Settings,
    model: Any,
    args: Any,
    kwargs: Any,
    dynamic_shapes: Any,
    dynamic_axes: Any,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> tuple[Request, Captured]:
    """The first arrows: what the caller gave, in one form, and the model captured."""
    host = settings.call.plugins
    with run.stage("capture"):
        request: Request = host.act(
            "prepare",
            model,
            args,
            kwargs,
            dynamic_shapes=dynamic_shapes,
            dynamic_axes=dynamic_axes,
            input_names=input_names,
            output_names=output_names,
            containers=host.containers(),
        )
        run.captured = captured = host.act("capture", model, request, host, tell=run.observer)
    return request, captured


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Nearly all that is made meanwhile stays: a full collection finds nothing, and takes as long as a translation."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def translate_program(captured: Captured, settings: Settings, run: Run) -> Translated:
    """The middle arrows: a captured program as an ONNX model, with what was refused.

    Decompositions are traced meanwhile, and constants computed: for real, though the caller may export under its own
    fake mode, and without autocast, whose casts are in the graph by now.
    """
    with TRACING, _without_collection(), unset_fake_temporarily(), without_autocast():
        translated = _translated(captured, settings, run)
    run.count(translated.model, after=False)
    return translated


def _translated(captured: Captured, settings: Settings, run: Run) -> Translated:
    host, interface = settings.call.plugins, captured.interface
    with run.stage("functionalize"), using(host.semantics):
        program = with_program_passes(captured.program, host.program_passes(), run.passes)
        functionalizer = chosen_functionalizer(host.items("onnxport_functionalizers"))
        decomposer = host.act("decomposer", settings.registry.decompositions, functionalizer.graph)
        functional = functionalizer.program(program, is_kept=settings.registry.is_overridden, may_skip=True)
        functional = _with_mutations(functional, settings.mutation)
        functional = with_passes(functional, host.fx_passes(settings.call.profile.name), run.passes)
        run.fallback, run.dropped_assertions = functional.fallback, functional.dropped_assertions
        folded = Folded({}, functional.skipped)
        if settings.optimize and (folders := host.items("onnxport_folders")):
            overrides = Overrides(settings.registry, decomposer)
            folded = folders[0](functional, program, host.semantics, overrides.of)
    with run.stage("translate"), using(host.semantics):
        translator = Translator(
            program,
            functional,
            settings.registry,
            names=Names(
                {leaf.placeholder: leaf.name for leaf in interface.inputs if leaf.name},
                interface.outputs,
                interface.dim_names,
            ),
            weights=initializers_of(program),
            folded=folded,
            level=settings.metadata,
            call=settings.call,
            seed=settings.seed,
            functions=settings.functions,
            decomposer=decomposer,
        )
        run.translated = translated = translator.run()
        for problem in translator.table_use.problems(settings.call.table, functional.graph_module.graph):
            warn(problem)
        if settings.metadata == "none":
            translated.model.graph.metadata_props.clear()
        if translated.inlined and settings.functions:
            listed = "\n".join(f"    {path}: {reason}" for path, reason in translated.inlined.items())
            warn(f"Calls that could not become functions (functions=) stay inline:\n{listed}")
        _name_output_axes(translated.model, interface)
        translated.model.meta[keys.FOLDED] = folded_weights(folded, program)
        translated.model.meta[keys.TRANSLATED] = functional.graph_module
    return translated


def _name_output_axes(model: ir.Model, interface: Interface) -> None:
    """Dimensions of outputs that ``dynamic_axes`` names; static ones stay what they are."""
    for output in model.graph.outputs:
        index = interface.outputs.index(output.name) if output.name in interface.outputs else -1
        if index not in interface.output_axes or output.shape is None:
            continue
        dims = list(output.shape)
        for axis, name in interface.output_axes[index].items():
            if not isinstance(dims[axis], int):
                dims[axis] = ir.SymbolicDim(name)
        output.shape = ir.Shape(dims)


def _with_mutations(functional: FunctionalProgram, mutation: str) -> FunctionalProgram:
    """The program with its mutations kept, refused or dropped, as ``mutation=`` says.

    Raises:
        MutationError: there are mutations and ``mutation="error"``.
    """
    if not functional.mutations or mutation == "outputs":
        return functional
    names = ", ".join(f"{m.target} ({m.kind.lower().replace('_', ' ')})" for m in functional.mutations)
    if mutation == "error":
        raise MutationError(
            f"The model's forward changes {names}. Export with mutation='outputs' to get the new values as outputs, "
            "with mutation='drop' to leave them out, or change the model.",
            targets=[m.target for m in functional.mutations],
        )
    warn(f"The new values of {names} are not in the exported model (mutation='drop').")
    return replace(functional, mutations=())


def _verifier(call: Call) -> Callable[..., Any]:
    found = call.plugins.items("onnxport_verify")
    if not found:
        raise InputError(
            "verify=True needs a plugin that verifies (onnxport_verify): install one, or leave verify out.",
            parameter="verify",
        )
    return found[0]  # type: ignore[no-any-return]

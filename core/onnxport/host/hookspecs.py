"""The hooks that a plugin of onnxport may implement: the whole contract between the core and its plugins.

A plugin is a module (or any object) with functions marked by :data:`hookimpl`. It is found by its
entry point in the group ``onnxport``::

    [project.entry-points.onnxport]
    mypack = "mypack.onnx"

Every hook is optional, and called when plugins are loaded, or once per export where it says so;
never for each node. A hook that raises, or returns something else than it says, is reported by
``onnxport plugins`` and skipped; it doesn't break exports that can do without it.

pluggy calls the hooks, so its options work: ``tryfirst``, ``trylast``, ``wrapper``, ``hookwrapper``,
``specname`` and ``optionalhook``. Plugins are called in the order of ``plugins=[...]``, the built-ins
last; a wrapper gets the results of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import torch
    import typer

    from onnxport.records.emission import Record
    from onnxport.records.profiles import Profile
    from onnxport.records.semantics import Record as Meaning
    from onnxport.records.stages import Action, Container, Pass, ProgramPass, Strategy
    from onnxport.records.translations import Translation
    from onnxport.vocabulary.patching import Replacement
    from onnxport.vocabulary.upstream import OpOverload

PROJECT = "onnxport"
API_VERSION = 1
"""The version of what plugins may use: the hooks, the records, and the names of ``onnxport``, ``onnxport.authoring``,
``onnxport.kit`` and ``onnxport.testing``. It grows when one of these is removed or means something else; not when some
are added.
"""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def onnxport_translations() -> Iterable[Translation]:  # type: ignore[empty-body]
    """Translations of operators. Called once, when the plugin is loaded.

    ::

        from onnxport import collect, hookimpl, translation

        @translation("mypack::scaled_add")
        def scaled_add(op, x, y, scale):
            return op.Add(x, op.Mul(y, scale))

        @hookimpl
        def onnxport_translations():
            return collect(scaled_add)       # or collect(module), for all of a module's functions

    Don't import the library that defines the operators here: name them as strings.
    """


@hookspec(firstresult=True)
def onnxport_resolve(target: object, opset: int) -> Iterable[Translation] | None:
    """Translations for a target that no record names, such as a whole namespace. The first answer is taken.

    Called once for each unknown target and opset. Return ``None`` for targets of others. The records' own
    target is ignored. ::

        @hookimpl
        def onnxport_resolve(target, opset):
            if getattr(target, "namespace", "") == "mypack":
                return [Translation(target, functools.partial(emit_as_custom_op, name=target.name()))]
    """


@hookspec(firstresult=True)
def onnxport_adapt(function: object) -> Translation | None:
    """A function of ``custom_translation_table`` that isn't written for ``op``, as a translation.

    Called for each function of a call's table. Return ``None`` for the functions of others, and for those whose first
    parameter is ``op``: these are taken as they are. Of the record, ``function`` and ``complex`` are used. ::

        @hookimpl
        def onnxport_adapt(function):
            if isinstance(function, mylib.Expression):
                return Translation("mylib::any", lambda op, **arguments: function.emit(op, arguments))
    """


@hookspec
def onnxport_decompositions() -> Mapping[OpOverload, Callable[..., Any]]:  # type: ignore[empty-body]
    """Functions that compute an operator by others; used where no translation takes a node.

    Called once, when the plugin is loaded; it goes before torch's own decomposition of the operator. ::

        @hookimpl
        def onnxport_decompositions():
            return {torch.ops.mypack.norm2.default: lambda x: (x * x).sum().sqrt()}
    """


@hookspec
def onnxport_profiles() -> Iterable[Profile]:  # type: ignore[empty-body]
    """Runtimes that files can be written for, by ``export(runtime=...)``. Called once, when one is first asked for.

    A translation for some of them says so, and is asked before those for all; ``op.profile`` is the one written for::

        @translation("mypack::scaled_add", profile="myruntime*")
        def scaled_add(op, x, y, scale):
            return op.call("my.domain", "ScaledAdd", x, y, scale=scale)

        @hookimpl
        def onnxport_profiles():
            return [Profile("myruntime", "my runtime 2.1", domains={"my.domain": 1}, opset=21)]
    """


@hookspec
def onnxport_containers() -> Iterable[Container]:  # type: ignore[empty-body]
    """Classes that hold tensors, for models that take or return them. Called once, when they are first needed.

    ::

        @hookimpl
        def onnxport_containers():
            return [Container(State, lambda s: ([s.hidden, s.cell], None), lambda c, _: State(*c),
                              names=lambda s: ["hidden", "cell"])]

    A class that is registered as a pytree node already stays as it is.
    """


@hookspec
def onnxport_patches(  # type: ignore[empty-body]
    model: torch.nn.Module,
) -> Iterable[Replacement | AbstractContextManager[Any]]:
    """What is other than usual while a model is captured. Called for each export.

    For libraries whose forward can't be captured as it is. A :class:`~onnxport.vocabulary.patching.Replacement` names
    a function and gives what takes its place: it is made, counted and undone for you. For what isn't a single
    attribute, return context managers, and undo everything on exit. ``model`` is what is captured, for those that
    change some of its modules; leave the parameter out where it doesn't matter. ::

        @hookimpl
        def onnxport_patches():
            return [Replacement("mylib.attention", "use_fused_kernel", lambda _: False, torch="<2.16",
                                why="the fused kernel has no meta kernel")]
    """


@hookspec
def onnxport_strategies() -> Iterable[Strategy]:  # type: ignore[empty-body]
    """Other ways to capture a model. Called once, when they are first needed.

    They are tried where ``torch.export.export`` fails, or gives a program that one of them refuses. ::

        @hookimpl
        def onnxport_strategies():
            return [Strategy("by my tracer", trace, lambda e: Turn.LAST if "mylib" in str(e) else Turn.NEVER)]
    """


@hookspec
def onnxport_program_passes() -> Iterable[ProgramPass]:  # type: ignore[empty-body]
    """Steps over the captured ``ExportedProgram``. Called once, when they are first needed.

    Weights that are to be taken apart, or what makes a program wrong: a step that raises an error of
    ``onnxport.errors`` refuses the program. ::

        @hookimpl
        def onnxport_program_passes():
            return [ProgramPass("mypack.unpacked_weights", with_unpacked, weights=unpacked)]
    """


@hookspec
def onnxport_semantics() -> Iterable[Meaning]:  # type: ignore[empty-body]
    """What operators do besides computing. Called once, when it is first needed; the first record of one is taken.

    Views, writes, regions, assertions, ties, fills and foldings, see :mod:`onnxport.records.semantics`. ::

        @hookimpl
        def onnxport_semantics():
            return [Assertion("mypack::check_rows"), View("mypack::window", inverse="mypack::window_scatter")]
    """


@hookspec
def onnxport_emission() -> Iterable[Record]:  # type: ignore[empty-body]
    """What the builder is taught about ONNX operators and sizes. Called once, when it is first needed.

    The first record about something is taken, see :mod:`onnxport.records.emission`: element types and shapes of
    results, functions that symbolic sizes are made of, the text of dimensions, functions of the model. All checks of
    nodes are made. ::

        @hookimpl
        def onnxport_emission():
            return [Inference("FusedMatMul", dims=product_dims, domain="com.microsoft")]
    """


@hookspec
def onnxport_functionalizers() -> Iterable[Any]:  # type: ignore[empty-body]
    """Ways from a captured program to a graph without writes. Called once, when they are first needed.

    Each has the methods of :class:`onnxport.functional.program.Functionalizer`: ``program`` and ``graph``. The first
    one is used; those of third parties go before the built-in one. ::

        @hookimpl
        def onnxport_functionalizers():
            return [MyFunctionalizer()]
    """


@hookspec
def onnxport_folders() -> Iterable[Callable[..., Any]]:  # type: ignore[empty-body]
    """What computes nodes at export time, with ``optimize=True``. Called once, when it is first needed.

    The first one is used. It takes the :class:`onnxport.functional.program.FunctionalProgram`, the captured program,
    the records of ``onnxport_semantics``, and a function that tells the nodes that a table or a third party translates.
    It returns :class:`onnxport.functional.program.Folded`.
    """


@hookspec
def onnxport_walkers() -> Iterable[Callable[..., Any]]:  # type: ignore[empty-body]
    """Other orders in which the nodes of a graph are translated. Called once, when they are first needed.

    Each is called for an export with a :class:`onnxport.translate.model.Walk`, and gives a
    :class:`onnxport.translate.model.Walker`, or None where it has nothing to do. The first that has something to do
    takes the nodes. ::

        @hookimpl
        def onnxport_walkers():
            return [my_walker]
    """


@hookspec
def onnxport_fx_passes() -> Iterable[Pass]:  # type: ignore[empty-body]
    """Steps over the functional FX graph, before translation. Called once, when they are first needed.

    A step gets a ``GraphModule`` and changes it in place. It keeps placeholders and the order of the outputs, and
    gives new nodes the fake result that others have in ``node.meta["val"]``. ``before`` and ``after`` name other
    plugins' steps: the core has none of its own.

    ::

        @hookimpl
        def onnxport_fx_passes():
            return [Pass("mypack.fuse_scaled_add", fuse_scaled_add)]
    """


@hookspec
def onnxport_ir_passes() -> Iterable[Pass]:  # type: ignore[empty-body]
    """Steps over the ONNX model (``onnx_ir.Model``), with ``optimize=True``. Called once, when they are first needed.

    ``ONNXProgram.optimize`` runs them too. A name that is taken, or a place that doesn't exist, is a PluginError. ::

        @hookimpl
        def onnxport_ir_passes():
            return [Pass("mypack.pack_weights", pack_weights, after="dead_code")]
    """


@hookspec
def onnxport_actions() -> Iterable[Action]:  # type: ignore[empty-body]
    """How a model is captured; how an ``ONNXProgram`` runs, is saved, loaded, and takes other weights. Called once.

    :data:`onnxport.records.stages.ACTIONS` has their names and arguments. The first that doesn't give
    ``NotImplemented`` is used; those of third parties go before the built-in. Their errors are the caller's. ::

        def save(program, destination, **options):
            if not str(destination).startswith("s3://"):
                return NotImplemented
            with bucket.opened(destination) as file:
                program.save(file, **options)

        def check_destination(destination, external_data):
            return False if str(destination).startswith("s3://") else NotImplemented

        @hookimpl
        def onnxport_actions():
            return [Action("save", save), Action("check_destination", check_destination)]
    """


@hookspec
def onnxport_verify() -> Iterable[Callable[..., Any]]:  # type: ignore[empty-body]
    """What ``export(verify=True)`` does; the first one is used. It is called with the program, the eager model or None,
    and the arguments of the call, and returns a result: ``passed``, ``as_dict()``, ``raise_on_failure(program)``."""


@hookspec
def onnxport_precisions() -> Iterable[Any]:  # type: ignore[empty-body]
    """What ``export(dtype=...)`` may ask for: ``plan`` as below, of a mapping with ``dtype``, ``keep``, ``keep_io``."""


@hookspec
def onnxport_quantizers() -> Iterable[Any]:  # type: ignore[empty-body]
    """What ``export(quantize=...)`` may ask for. Called once, when it is first needed.

    Each has three methods, and the first that doesn't give None is used; those of third parties go before the built-in.
    ``plan(request, opset, names)`` is asked before the capture, with what ``quantize=`` says, the target opset (None
    where the caller leaves it open) and the names of the model's weights. It gives None for the request of another, or
    raises an InputError. Else it gives an object with ``opset``, the lowest that has what it writes, and
    ``apply(program)``, which changes the ONNXProgram and returns a result with ``table()`` and ``as_dict()``.
    ``restore(model)`` lets the weights of a model that was read from a file be replaced: it puts tensors that know the
    weight that they are made of in the place of its own.
    ``roundings(model, weights)`` gives None, or what an ONNX model has in place of a torch model's weights, which are
    given by name: an object with ``items()``, pairs of a name and a tensor; ``table()`` and ``as_dict()``, which tell
    the errors; ``missing``, names of weights that aren't given; and ``differing()``, names of weights that the file has
    from another model, of the ``compared`` that it looks at.
    """


@hookspec
def onnxport_check() -> Iterable[Callable[..., Any]]:  # type: ignore[empty-body]
    """What ``check`` looks for in the translated model (``onnx_ir.Model``), such as kernels that a runtime lacks.

    Called once, when it is first needed. Each takes the model and the :class:`Profile` that it is for, and returns a
    list of findings: dataclasses with a ``provider``, whose ``str`` is a line for people.
    """


@hookspec
def onnxport_before_export() -> Iterable[Callable[..., Any]]:  # type: ignore[empty-body]
    """What precedes an export. Each is called with its ``Run``, and may set ``run.observer``, which shows progress."""


@hookspec
def onnxport_after_export() -> Iterable[Callable[..., Any]]:  # type: ignore[empty-body]
    """What follows an export, whether it succeeded or failed. Each is called with its :class:`onnxport.run.Run` and
    ``report``, ``profile`` and ``shown``: which pages are wanted, and whether something may be printed."""


@hookspec(firstresult=True)
def onnxport_advice(subject: str | Exception, place: str) -> str | None:
    """One line that says what to do about a refusal. Called where an error is about to be told; the first is taken.

    Args:
        subject: the qualified name of an operator that nothing translates; or an error of a capture: torch's own, or
            a ``DynamicShapesError`` of a size that the model makes a number.
        place: ``file:line: code`` of the model; empty where it is unknown.

    Return None where you have nothing to say. ::

        @hookimpl
        def onnxport_advice(subject):
            if subject == "mypack::sorted_pairs":
                return "Call mypack.pairs(x, sort=False): a file can't have the order."
    """


@hookspec(firstresult=True)
def onnxport_html(subject: object) -> str | None:
    """A result, such as an ``ONNXProgram`` or a ``CheckResult``, as HTML for a notebook. Called when one is shown.

    Return None for the results of others. ::

        @hookimpl
        def onnxport_html(subject):
            return subject.as_table() if isinstance(subject, MyProgram) else None
    """


@hookspec
def onnxport_checkpoints() -> Iterable[Callable[..., Any]]:  # type: ignore[empty-body]
    """Readers of checkpoints, for ``ONNXProgram.apply_weights(path)``. Called once, when one is first needed.

    Each is called with the path of a file or folder. It returns tensors by state-dict name, or None where another
    reader knows the format; the first that returns tensors is used. Its errors are the caller's. ::

        @hookimpl
        def onnxport_checkpoints():
            return [lambda path: read_gguf(path) if path.endswith(".gguf") else None]
    """


@hookspec
def onnxport_commands(app: typer.Typer) -> None:
    """Add commands to the command line. Called when it starts. ::

    @hookimpl
    def onnxport_commands(app):
        @app.command("mypack-info")
        def info() -> None:
            typer.echo("mypack serves 12 operators")
    """

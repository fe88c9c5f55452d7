"""The command line: ``onnxport export|check|verify|find-mismatch|view|ops|explain|plugins``.

Exit codes: 0 done; 1 the model is refused, or the ONNX model computes something else; 2 the call
itself can't be used (arguments, files, names of plugins); 3 a defect in onnxport or in a plugin.

What a machine reads goes to the standard output, all else to standard error.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from onnxport_workbench.cli_options import (
    FunctionsOption,
    JsonOption,
    ModelArgument,
    OpsetOption,
    PluginsOption,
    PreferOption,
    QuantizeOption,
    RuntimeOption,
    UsageError,
    given,
    preferred,
)
from onnxport_workbench.cli_output import (
    INTERNAL,
    OK,
    REFUSED,
    USAGE,
    Commands,
    PlainConsole,
    errors_console,
    guarded,
    print_json,
)

if TYPE_CHECKING:
    from onnxport import Profile, Translation
    from onnxport.kit import Plugins, Registry

    from onnxport_workbench.explaining import Explanation

console = PlainConsole()

app = typer.Typer(
    name="onnxport",
    cls=Commands,
    help="Export PyTorch models to ONNX.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@dataclasses.dataclass
class Example:
    """A model with its example inputs, and options for the export."""

    model: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def load_example(spec: str) -> Example:
    """The model that a command's argument names.

    Args:
        spec: ``module:factory``, ``path/to/file.py:factory``, or the path of a ``.pt2`` file.

    Raises:
        UsageError: nothing is there, it can't be imported, or the factory fails or returns something else.
    """
    if spec.endswith(".pt2"):
        import torch

        if not Path(spec).is_file():
            raise UsageError(f"there is no file {spec}")
        try:
            return Example(torch.export.load(spec))
        except Exception as error:
            raise UsageError(f"{spec} can't be read as an ExportedProgram: {error}") from error
    module_name, separator, path = spec.rpartition(":")
    if not (separator and module_name and path):
        raise UsageError(f"{spec!r} is neither MODULE:FACTORY nor the path of a .pt2 file")
    factory: Any = _import(module_name)
    for name in path.split("."):
        if not hasattr(factory, name):
            raise UsageError(f"{module_name} has no {path}")
        factory = getattr(factory, name)
    if not callable(factory):
        raise UsageError(f"{spec} isn't callable: it must return a model and its example inputs")
    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise UsageError(f"{spec} failed:\n{''.join(traceback.format_exception(error))}") from error
    return _example(spec, made)


def _import(name: str) -> Any:
    try:
        if name.endswith(".py"):
            path = Path(name)
            found = util.spec_from_file_location(path.stem, path)
            if not path.is_file() or found is None or found.loader is None:
                raise UsageError(f"there is no file {name}")
            module = util.module_from_spec(found)
            sys.modules[path.stem] = module
            found.loader.exec_module(module)
            return module
        if "" not in sys.path:
            sys.path.insert(0, "")
        return import_module(name)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{name} can't be imported: {type(error).__name__}: {error}") from error


def _example(spec: str, made: Any) -> Example:
    if isinstance(made, dict):
        options = dict(made)
        model = options.pop("model", None)
        if model is not None:
            return Example(model, _as_args(options.pop("args", ())), options.pop("kwargs", None), options)
    elif isinstance(made, (tuple, list)) and len(made) in (2, 3):
        return Example(made[0], _as_args(made[1]), made[2] if len(made) == 3 else None)
    raise UsageError(
        f"{spec} must return (model, args), (model, args, kwargs) or a dict with 'model'; it returned {type(made)}"
    )


def _as_args(args: Any) -> tuple[Any, ...]:
    return tuple(args) if isinstance(args, (tuple, list)) else (args,)


def _plugins(names: list[str] | None, opset: int | None, runtime: str | None = None) -> tuple[Plugins, Registry]:
    """The plugins that an option names, all where it names none, and their registry."""
    from onnxport.kit import DEFAULT_OPSET, chosen_profile, load

    plugins = load(names or None)
    profile = chosen_profile(runtime or "onnx", False, plugins.profiles)
    return plugins, plugins.registry(opset or profile.opset or DEFAULT_OPSET, profile.name)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[str], None]]:
    """A display of the stage that is going on, where somebody is looking; gives the function that names the stage."""
    with errors_console.status(title) as status:
        yield lambda stage: status.update(f"{title}: {stage}")


@app.command()
@guarded
def export(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    opset: OpsetOption = None,
    runtime: RuntimeOption = None,
    portable: Annotated[
        bool, typer.Option("--portable", help="With --runtime, write its own operators as functions of standard ones.")
    ] = False,
    optimize: Annotated[bool, typer.Option(help="Make the graph leaner.")] = True,
    external_data: Annotated[bool, typer.Option(help="Write weights to a file beside the model.")] = True,
    verify: Annotated[bool, typer.Option("--verify", help="Compare with torch on the example inputs.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write a report beside the model.")] = False,
    quantize: QuantizeOption = None,
    functions: FunctionsOption = None,
    plugin: PluginsOption = None,
    prefer: PreferOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a model to an ONNX file."""
    example = load_example(model)
    options: dict[str, Any] = {"optimize": optimize, "verify": verify, "report": report, "artifacts_dir": output.parent}
    options.update(example.options, **given(opset, plugin, functions, prefer, runtime, quantize))
    options |= {"portable": True} if portable else {}
    import onnxport

    with _progress(f"Exporting {model}") as progress:
        program = onnxport.export(
            example.model,
            example.args,
            output,
            kwargs=example.kwargs,
            external_data=external_data,
            verbose=progress,
            **options,
        )
    graph = program.model.graph
    summary = {
        "output": str(output),
        "opset": graph.opset_imports[""],
        "nodes": sum(1 for _ in graph.all_nodes()),
        "functions": {function.name: len(function) for function in program.model.functions.values()},
        "initializers": len(graph.initializers),
        "inputs": {str(value.name): _described(value) for value in graph.inputs},
        "outputs": {str(value.name): _described(value) for value in graph.outputs},
    }
    if as_json:
        print_json(summary)
        return
    console.print(f"{output}: opset {summary['opset']}, {summary['nodes']} nodes")
    for function, nodes in summary["functions"].items():  # type: ignore[attr-defined]
        console.print(f"  function {function}: {nodes} nodes")
    for kind in ("inputs", "outputs"):
        for name, text in summary[kind].items():  # type: ignore[attr-defined]
            console.print(f"  {kind[:-1]:6} {name}: {text}")


def _described(value: Any) -> str:
    shape = "?" if value.shape is None else ", ".join(str(dim) for dim in value.shape)
    return f"{value.dtype}[{shape}]"


@app.command()
@guarded
def check(
    model: ModelArgument,
    opset: OpsetOption = None,
    runtime: RuntimeOption = None,
    functions: FunctionsOption = None,
    plugin: PluginsOption = None,
    prefer: PreferOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the operators of a model that can't be exported, without exporting it."""
    example = load_example(model)
    import onnxport

    known = inspect.signature(onnxport.check).parameters
    options = {name: value for name, value in example.options.items() if name in known}
    options.update(given(opset, plugin, functions, prefer, runtime))
    with _progress(f"Checking {model}"):
        result = onnxport.check(example.model, example.args, kwargs=example.kwargs, **options)
    if as_json:
        print_json(result.as_dict())
    else:
        print(result)
    if result.refusals:  # a conflict is shown, and settled by --prefer
        raise typer.Exit(REFUSED)


@app.command()
@guarded
def verify(
    onnx_model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The exported model.")],
    model: ModelArgument,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance; by default that of the dtype.")] = None,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance; by default that of the dtype.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare an ONNX model on onnxruntime with its torch model, on the example inputs."""
    if not onnx_model.is_file():
        raise UsageError(f"there is no file {onnx_model}")
    example = load_example(model)
    import onnxport

    with _progress(f"Verifying {onnx_model}"):
        result = onnxport.verify(onnx_model, example.model, example.args, example.kwargs, rtol=rtol, atol=atol)
    if as_json:
        print_json(result.as_dict())
    else:
        print(result.table())
    if not result.passed:
        for line in result.failures():
            errors_console.print(line, style="red")
        raise typer.Exit(REFUSED)


@app.command()
@guarded
def find_mismatch(
    model: ModelArgument,
    repro: Annotated[Path | None, typer.Option(help="A folder for a minimal reproduction.")] = None,
    opset: OpsetOption = None,
    optimize: Annotated[bool, typer.Option(help="Make the graph leaner.")] = True,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance; by default that of the dtype.")] = None,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance; by default that of the dtype.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page that shows the model and the node.")] = None,
    plugin: PluginsOption = None,
    prefer: PreferOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the first ONNX node that computes something else than the torch operator that it comes from."""
    example = load_example(model)
    options: dict[str, Any] = {"optimize": optimize, **example.options, **given(opset, plugin, prefer=prefer)}
    import onnxport

    with _progress(f"Exporting {model}") as progress:
        program = onnxport.export(example.model, example.args, kwargs=example.kwargs, verbose=progress, **options)
        progress("find mismatch")
        result = onnxport.find_mismatch(program, rtol=rtol, atol=atol, repro=repro)
        if page is not None:
            onnxport.view(program, page, mismatch=result)
    if as_json:
        print_json(result.as_dict())
    else:
        print(result)
    if not result.passed:
        raise typer.Exit(REFUSED)


@app.command()
@guarded
def view(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL.onnx [NEWER.onnx]", help="An ONNX file; or two, to compare them.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page to write; by default the model's name with .html.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="Times of nodes: a profile that onnxruntime wrote, a .json file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write an HTML page that shows a model: modules, graph and source lines; of two files, what differs."""
    if len(models) > 2:
        raise UsageError(f"{len(models)} files are given: view shows one model, or compares two")
    missing = [str(path) for path in models if not path.is_file()]
    if missing:
        raise UsageError(f"there is no file {missing[0]}")
    import onnxport

    before = models[0] if len(models) == 2 else None
    written = onnxport.view(models[-1], output, before=before, latencies=profile)
    if as_json:
        print_json({"page": str(written)})
    else:
        console.print(f"{written}: open it in a browser")


@app.command()
@guarded
def ops(
    pattern: Annotated[str, typer.Argument(help="Part of an operator's name.")] = "",
    opset: OpsetOption = None,
    plugin: PluginsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the translations that are registered."""
    _, registry = _plugins(plugin, opset)
    records = sorted(
        (r for r in registry.table() if pattern in r.name),
        key=lambda record: (record.name, *(-number for number in record.rank)),
    )
    if as_json:
        print_json([_record_as_dict(record) for record in records])
        return
    table = Table("operator", "opset", "plugin", Column("function", overflow="fold"), box=None, pad_edge=False)
    for record in records:
        table.add_row(record.name, f"{record.opset}+", record.plugin, record.function_name)
    console.print(table)
    errors_console.print(f"{len(records)} translations of {len({r.name for r in records})} operators")


def _record_as_dict(record: Translation) -> dict[str, Any]:
    doc = (record.function.__doc__ or "").strip()
    return {
        "target": record.name,
        "opset": record.opset,
        "priority": record.priority,
        "complex": record.complex,
        "profile": record.profile,
        "plugin": record.plugin,
        "function": record.function_name,
        "location": record.location,
        "doc": doc.splitlines()[0] if doc else "",
    }


@app.command()
@guarded
def explain(
    operator: Annotated[
        str,
        typer.Argument(
            help="Such as aten::add.Tensor, operator.add, or as graphs and errors of torch print it: aten.add.Tensor, "
            "'<built-in function add>'. A name alone, such as gelu, does too."
        ),
    ],
    opset: OpsetOption = None,
    runtime: RuntimeOption = None,
    plugin: PluginsOption = None,
    prefer: PreferOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which translations serve an operator, in the order in which they are tried."""
    from onnxport_workbench import explaining

    loaded, registry = _plugins(plugin, opset, runtime)
    told = explaining.explain(loaded.preferring(preferred(prefer) or None, registry.opset, registry.profile), operator)
    advice = "" if told.candidates else loaded.advice(told.target)
    if as_json:
        print_json({**_explanation_as_dict(told), "advice": advice})
    else:
        for each in told.overloads or (told,):
            _print_explanation(each)
        for hint in (*(() if told.overloads else told.hints), *([advice] if advice else [])):
            console.print(f"  {hint}")
    if not (told.candidates or told.of_sizes or any(each.candidates for each in told.overloads)):
        raise typer.Exit(REFUSED)


def _explanation_as_dict(told: Explanation) -> dict[str, Any]:
    return {
        "target": told.target,
        "opset": told.opset,
        "candidates": [_record_as_dict(record) for record in told.candidates],
        "rejected": [{**_record_as_dict(record), "reason": reason} for record, reason in told.rejected],
        "decomposition": told.decomposition,
        "hints": list(told.hints),
        "conflict": None if told.conflict is None else told.conflict.as_dict(),
        "overloads": [_explanation_as_dict(each) for each in told.overloads],
        "of_sizes": told.of_sizes,
    }


def _print_explanation(told: Explanation) -> None:
    console.print(f"{told.target} at opset {told.opset}")
    for number, record in enumerate(told.candidates, 1):
        _print_record(f"{number}.", record)
    for record, reason in told.rejected:
        _print_record("-", record, reason)
    if told.conflict is not None:
        console.print(f"  conflict: {told.conflict}")
    if not told.candidates and not told.rejected and not told.of_sizes:
        console.print("  no translation")
    if told.decomposition:
        console.print(f"  then decomposed by {told.decomposition}")


def _print_record(mark: str, record: Translation, reason: str = "") -> None:
    data = _record_as_dict(record)
    complex_note = ", complex" if record.complex else ""
    priority = f", priority {record.priority}" if record.priority else ""
    console.print(
        f"  {mark} {data['function']} ({data['location']})\n"
        f"     plugin {data['plugin']}, opset {data['opset']}+{priority}{complex_note}",
        markup=False,
    )
    for line in (data["doc"], reason):
        if line:
            console.print(f"     {line}")


@app.command()
@guarded
def plugins(
    plugin: PluginsOption = None,
    as_json: JsonOption = False,
    replacements: Annotated[
        bool, typer.Option("--replacements", help="List what they replace of libraries while a model is captured.")
    ] = False,
) -> None:
    """List the plugins, and what failed in them."""
    loaded = _plugins(plugin, None)[0]
    if replacements:
        _show_replacements(loaded, as_json)
        return
    infos = [*loaded.infos, *(info for info in loaded.failures if info not in loaded.infos)]
    if as_json:
        names = ("name", "distribution", "version", "translations", "error", "warning")
        print_json([{name: getattr(info, name) for name in names} for info in infos])
        return
    table = Table("plugin", "distribution", "version", "translations", "error", box=None, pad_edge=False)
    for info in infos:
        told = "; ".join(text for text in (info.error, info.warning) if text)
        table.add_row(info.name, info.distribution, info.version, str(info.translations), told)
    console.print(table)


@app.command()
@guarded
def profiles(
    name: Annotated[str, typer.Argument(help="A profile; all are listed when it is left out.")] = "",
    plugin: PluginsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runtimes that files can be written for, or what decides about the files of one."""
    from onnxport.kit import chosen_profile

    known = _plugins(plugin, None)[0].profiles()
    wanted = [chosen_profile(name, False, lambda: known)] if name else list(known.values())
    if as_json:
        fields = ("name", "description", "plugin", "opset", "domains", "providers", "choices")
        print_json([{field: getattr(profile, field) for field in fields} for profile in wanted])
    elif name:
        _print_profile(wanted[0])
    else:
        table = Table("profile", "plugin", Column("description", overflow="fold"), box=None, pad_edge=False)
        for profile in wanted:
            table.add_row(profile.name, profile.plugin or "onnxport", profile.description)
        console.print(table)


def _print_profile(profile: Profile) -> None:
    console.print(f"{profile.name}: {profile.description}")
    if profile.opset:
        console.print(f"  opset {profile.opset} where none is asked for")
    if profile.providers:
        console.print(f"  execution providers: {', '.join(profile.providers)}")
    for domain, version in profile.domains.items():
        console.print(f"  domain {domain}, version {version}")
    if profile.choices:
        table = Table("operator", Column("choice", overflow="fold"), box=None, pad_edge=False)
        for operator, choice in profile.choices.items():
            table.add_row(operator, choice)
        console.print(table)


def _show_replacements(loaded: Plugins, as_json: bool) -> None:
    """What is replaced for a model without parts; some patches do more for the parts that they know."""
    import torch

    records = loaded.replacements(torch.nn.Module())
    if as_json:
        names = ("target", "plugin", "torch", "why")
        print_json([{name: getattr(record, name) for name in names} for record in records])
        return
    table = Table("replaced", "plugin", "torch", "why", box=None, pad_edge=False)
    for record in records:
        table.add_row(record.target, record.plugin, record.torch, record.why)
    console.print(table)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib_metadata import version

        print(f"onnxport {version('onnxport')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _add_plugin_commands(arguments: Sequence[str]) -> None:
    """Let plugins add their commands, unless one of ours is meant: they cost their imports."""
    from importlib_metadata import entry_points

    own = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    if asked not in own and entry_points(group="onnxport"):
        from onnxport.kit import load

        load().add_commands(app)


def main() -> None:
    """The console script."""
    try:
        guarded(lambda as_json: _add_plugin_commands(sys.argv[1:]))(as_json="--json" in sys.argv[1:])
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    app()


__all__ = ["INTERNAL", "OK", "REFUSED", "USAGE", "app", "load_example", "main"]

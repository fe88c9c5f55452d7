"""The command line: ``onnxport export|check|verify|find-mismatch|view|fix|ops|explain|plugins|profiles``.

Exit codes: 0 done; 1 the model is refused, the ONNX model computes something else, or nothing is found; 2 the call
itself can't be used (arguments, files, names of plugins); 3 a defect in onnxport or in a plugin.

What a machine reads goes to the standard output, all else to standard error.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from onnxport.kit import counted

from onnxport_workbench.cli_models import default_output, import_all, load_example
from onnxport_workbench.cli_options import (
    DtypeOption,
    DynamicOption,
    FunctionsOption,
    ImportOption,
    JsonOption,
    KeepIOOption,
    KeepOption,
    Metadata,
    ModelArgument,
    Mutation,
    OpsetOption,
    PluginsOption,
    PreferOption,
    QuantizeOption,
    RuntimeOption,
    UsageError,
    VerboseOption,
    fixed_sizes,
    given,
    kept,
    names,
    preferred,
    renamings,
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
    tell_if_it_fails,
)
from onnxport_workbench.cli_progress import progress
from onnxport_workbench.cli_summary import (
    print_summary,
    print_verification,
    summary_of,
    table_of,
    what_was_seen,
)
from onnxport_workbench.observing import watching

if TYPE_CHECKING:
    from onnxport import Profile, Translation
    from onnxport.kit import Plugins, Registry

    from onnxport_workbench.explaining import Explanation

console = PlainConsole()

EXIT_CODES = (
    "Exit codes: 0 done; 1 the model is refused, differs from torch, or nothing is found; 2 the call can't be used: "
    "arguments, files, names of plugins; 3 a defect in onnxport or in a plugin."
)

app = typer.Typer(
    name="onnxport",
    cls=Commands,
    help="Export PyTorch models to ONNX.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _plugins(chosen: list[str] | None, opset: int | None, runtime: str | None = None) -> tuple[Plugins, Registry]:
    """The plugins that an option names, all where it names none, and their registry."""
    from onnxport.kit import DEFAULT_OPSET, chosen_profile, load

    plugins = load(chosen or None)
    profile = chosen_profile(runtime or "onnx", False, plugins.profiles)
    return plugins, plugins.registry(opset or profile.opset or DEFAULT_OPSET, profile.name)


@app.command()
@guarded
def export(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The .onnx file to write; by default the factory's name with .onnx, here; or FILE.onnx.",
        ),
    ] = None,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    input_names: Annotated[
        list[str] | None, typer.Option("--input-names", metavar="NAME,...", help="Names of the inputs, in order.")
    ] = None,
    output_names: Annotated[
        list[str] | None, typer.Option("--output-names", metavar="NAME,...", help="Names of the outputs, in order.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--rename", metavar="OLD=NEW", help="Rename a dimension, such as s77=batch (repeatable)."),
    ] = None,
    runtime: RuntimeOption = None,
    portable: Annotated[
        bool, typer.Option("--portable", help="With --runtime, write its own operators as functions of standard ones.")
    ] = False,
    optimize: Annotated[bool, typer.Option(help="Make the graph leaner.")] = True,
    external_data: Annotated[bool, typer.Option(help="Write weights to a file beside the model.")] = True,
    verify: Annotated[bool, typer.Option("--verify", help="Compare with torch on the example inputs.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Write a report beside the model.")] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Tell the time and memory of each stage; with --report, the time of each node on onnxruntime.",
        ),
    ] = False,
    quantize: QuantizeOption = None,
    dtype: DtypeOption = None,
    keep: KeepOption = None,
    keep_io: KeepIOOption = False,
    mutation: Annotated[
        Mutation | None,
        typer.Option(
            "--mutation", help="New values of buffers and inputs that forward changes: as outputs, an error, or none."
        ),
    ] = None,
    metadata: Annotated[
        Metadata | None, typer.Option("--metadata", help="How much the file tells of where its nodes come from.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the random nodes of the file.")] = None,
    functions: FunctionsOption = None,
    imports: ImportOption = None,
    plugin: PluginsOption = None,
    prefer: PreferOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a model to an ONNX file."""
    path = default_output(model) if output is None else output
    asked = given(
        opset, plugin, functions, prefer, runtime, quantize, dynamic,
        input_names=names("--input-names", input_names), output_names=names("--output-names", output_names),
        mutation=mutation, metadata=metadata, seed=seed, portable=portable or None,
        dtype=dtype, keep=kept(keep), keep_io=keep_io or None,
    )  # fmt: skip
    renamed = renamings(rename)
    with progress(f"Exporting {model}", verbose=verbose) as tell, watching() as seen:
        import_all(imports)
        example = load_example(model)
        import onnxport

        errors_console.print(f"  {example.size}" if example.size else "  no weights")
        options: dict[str, Any] = {
            "optimize": optimize,
            "verify": verify,
            "report": report,
            "profile": profile,
            "artifacts_dir": path.parent,
        }
        options |= {**example.options, **asked}
        saved: dict[str, Any] = {} if renamed else {"f": path, "external_data": external_data}
        try:
            program = onnxport.export(
                example.model, example.args, kwargs=example.kwargs, verbose=tell, **saved, **options
            )
        except Exception:
            if seen.pages:
                tell_if_it_fails(report=[str(page) for page in seen.pages])
            raise
        if renamed:
            tell("rename")
            program.rename_axes(renamed)
            tell("save")
            program.save(path, external_data=external_data)
    summary = {**summary_of(program, path), **what_was_seen(seen, profile)}
    if as_json:
        print_json(summary)
    else:
        print_summary(console, summary, None if seen.run is None else seen.run.verification)


@app.command()
@guarded
def check(
    model: ModelArgument,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    runtime: RuntimeOption = None,
    functions: FunctionsOption = None,
    imports: ImportOption = None,
    plugin: PluginsOption = None,
    prefer: PreferOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the operators of a model that can't be exported, without exporting it."""
    asked = given(opset, plugin, functions, prefer, runtime, dynamic=dynamic)
    with progress(f"Checking {model}", verbose=verbose) as tell:
        import_all(imports)
        example = load_example(model)
        import onnxport

        known = inspect.signature(onnxport.check).parameters
        options = {**{name: value for name, value in example.options.items() if name in known}, **asked}
        tell("check")
        result = onnxport.check(example.model, example.args, kwargs=example.kwargs, **options)
    if as_json:
        print_json(result.as_dict())
    else:
        console.print(str(result))
        for operator, count in sorted(result.operators.items()) if verbose else ():
            console.print(f"  {operator}: {count}")
    if result.refusals:  # a conflict is shown, and settled by --prefer
        raise typer.Exit(REFUSED)


@app.command()
@guarded
def verify(
    onnx_model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The exported model.")],
    model: ModelArgument,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance; by default that of the dtype.")] = None,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance; by default that of the dtype.")] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            "--provider", help="Execution provider of onnxruntime, such as CPUExecutionProvider (repeatable)."
        ),
    ] = None,
    custom_ops: Annotated[
        list[Path] | None,
        typer.Option("--custom-ops", help="A library of operators that onnxruntime needs for the file (repeatable)."),
    ] = None,
    imports: ImportOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare an ONNX model on onnxruntime with its torch model, on the example inputs."""
    if not onnx_model.is_file():
        raise UsageError(f"there is no file {onnx_model}")
    with progress(f"Verifying {onnx_model}", verbose=verbose) as tell:
        import_all(imports)
        example = load_example(model)
        if hasattr(example.model, "example_arguments") and not example.args and not example.kwargs:
            example.args, example.kwargs = example.model.example_arguments()
        import onnxport

        tell("verify")
        result = onnxport.verify(
            onnx_model, example.model, example.args, example.kwargs, rtol=rtol, atol=atol, providers=provider,
            custom_ops=custom_ops or (),
        )  # fmt: skip
    if as_json:
        print_json(result.as_dict())
    else:
        print_verification(console, result)
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
    dynamic: DynamicOption = None,
    runtime: RuntimeOption = None,
    optimize: Annotated[bool, typer.Option(help="Make the graph leaner.")] = True,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance; by default that of the dtype.")] = None,
    atol: Annotated[float | None, typer.Option(help="Absolute tolerance; by default that of the dtype.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page that shows the model and the node.")] = None,
    imports: ImportOption = None,
    plugin: PluginsOption = None,
    prefer: PreferOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the first ONNX node that computes something else than the torch operator that it comes from."""
    asked = given(opset, plugin, prefer=prefer, runtime=runtime, dynamic=dynamic)
    with progress(f"Exporting {model}", verbose=verbose) as tell:
        import_all(imports)
        example = load_example(model)
        import onnxport

        options: dict[str, Any] = {"optimize": optimize, **example.options, **asked}
        program = onnxport.export(example.model, example.args, kwargs=example.kwargs, verbose=tell, **options)
        tell("find mismatch")
        result = onnxport.find_mismatch(program, rtol=rtol, atol=atol, repro=repro)
        if page is not None:
            onnxport.view(program, page, mismatch=result)
    if as_json:
        print_json(result.as_dict())
    else:
        console.print(str(result))
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
    before = models[0] if len(models) == 2 else None
    with progress(f"Reading {models[-1]}"):
        import onnxport

        written = onnxport.view(models[-1], output, before=before, latencies=profile)
    if as_json:
        print_json({"page": str(written)})
    else:
        console.print(f"{written}: open it in a browser")


@app.command()
@guarded
def fix(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file.")],
    dims: Annotated[
        list[str], typer.Option("--dim", metavar="NAME=SIZE", help="The size of a dimension: batch=1 (repeatable).")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; by default MODEL.fixed.onnx.")
    ] = None,
    external_data: Annotated[
        bool | None,
        typer.Option("--external-data/--no-external-data", help="Write weights to a file beside the model."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Give dynamic dimensions a size, for engines that need fixed shapes. Works with files of any exporter."""
    wanted = fixed_sizes(dims)
    if not model.is_file():
        raise UsageError(f"there is no file {model}")
    path = model.with_suffix(".fixed.onnx") if output is None else output
    import onnxport

    with progress("Fixing") as tell, onnxport.ONNXProgram.load(model) as program:
        before = len(program.model.graph)
        program.fix(**wanted)
        tell("save")
        program.save(path, external_data=external_data)
        graph = program.model.graph
        shapes = {value.name: [str(dim) for dim in value.shape or ()] for value in graph.inputs}
    if as_json:
        print_json({"path": str(path), "nodes": len(graph), "nodes_before": before, "inputs": shapes})
        return
    console.print(f"{path}: {counted(len(graph), 'node')} ({before} before)")
    for name, shape in shapes.items():
        console.print(f"  {name}: [{', '.join(shape)}]")


@app.command()
@guarded
def ops(
    pattern: Annotated[
        str, typer.Argument(help="Part of an operator's name, or a glob of all of it: gelu, 'aten::*gelu*', '*norm'.")
    ] = "",
    opset: OpsetOption = None,
    plugin: PluginsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the translations that are registered."""
    with progress("Loading plugins"):
        _, registry = _plugins(plugin, opset)
        from onnxport_workbench import spelling
    records = sorted(
        (record for record in registry.table() if spelling.matches(pattern, record.name)),
        key=lambda record: (record.name, *(-number for number in record.rank)),
    )
    if as_json:
        print_json([_record_as_dict(record) for record in records])
    elif records:
        table = table_of("operator", "opset", "plugin", "function")
        for record in records:
            table.add_row(record.name, f"{record.opset}+", record.plugin, record.function_name)
        console.print(table)
    if records:
        operators = len({record.name for record in records})
        errors_console.print(f"{counted(len(records), 'translation')} of {counted(operators, 'operator')}")
        return
    close = spelling.near(pattern.strip("*?"), registry.targets())
    hint = f"Names that look like it: {', '.join(close)}." if close else "onnxport ops lists all."
    errors_console.print(f"No operator matches {pattern!r}. {hint}")
    raise typer.Exit(REFUSED)


def _record_as_dict(record: Translation) -> dict[str, Any]:
    from onnxport import Deferred

    doc = "" if isinstance(record.function, Deferred) else inspect.getdoc(record.function) or ""
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
        "docstring": doc,
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
    imports: ImportOption = None,
    plugin: PluginsOption = None,
    prefer: PreferOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which translations serve an operator, in the order in which they are tried."""
    with progress("Loading plugins"):
        from onnxport_workbench import explaining

        import_all(imports)
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
        "schema": told.schema,
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
    if told.schema:
        console.print(f"  {told.schema}")
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
    for line in (*data["docstring"].splitlines(), reason):
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
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Import them again, even if nothing has changed since they were listed.")
    ] = False,
) -> None:
    """List the plugins, and what failed in them."""
    if replacements:
        with progress("Loading plugins"):
            loaded = _plugins(plugin, None)[0]
        _show_replacements(loaded, as_json)
        return
    from onnxport_workbench.plugin_list import listed

    infos = listed(plugin, fresh=fresh)
    if as_json:
        print_json(infos)
        return
    table = table_of("plugin", "distribution", "version", "translations", "error")
    for info in infos:
        told = "; ".join(text for text in (info["error"], info["warning"]) if text)
        table.add_row(info["name"], info["distribution"], info["version"], str(info["translations"]), told)
    console.print(table)


@app.command()
@guarded
def new_pack(
    name: Annotated[str, typer.Argument(help="Of the library whose operators it is for, such as mylib.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to write it; by default onnxport-NAME, here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a new pack: a distribution with an operator, its translation, tests and a page, to start from."""
    from onnxport_workbench.new_pack import write_pack

    files = write_pack(name, folder)
    if as_json:
        print_json({"files": [str(file) for file in files]})
        return
    for file in files:
        console.print(str(file))
    console.print(f"Next: cd {files[0].parent}, pip install -e '.[test]', pytest")


@app.command()
@guarded
def profiles(
    name: Annotated[str, typer.Argument(help="A profile; all are listed when it is left out.")] = "",
    plugin: PluginsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runtimes that files can be written for, or what decides about the files of one."""
    with progress("Loading plugins"):
        from onnxport.kit import chosen_profile

        known = _plugins(plugin, None)[0].profiles()
    wanted = [chosen_profile(name, False, lambda: known)] if name else list(known.values())
    if as_json:
        fields = ("name", "description", "plugin", "opset", "domains", "providers", "choices")
        print_json([{field: getattr(profile, field) for field in fields} for profile in wanted])
    elif name:
        _print_profile(wanted[0])
    else:
        table = table_of("profile", "plugin", "description")
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
        table = table_of("operator", "choice")
        for operator, choice in profile.choices.items():
            table.add_row(operator, choice)
        console.print(table)


def _show_replacements(loaded: Plugins, as_json: bool) -> None:
    """What is replaced for a model without parts; some patches do more for the parts that they know."""
    import torch

    records = loaded.replacements(torch.nn.Module())
    if as_json:
        fields = ("target", "plugin", "torch", "why")
        print_json([{field: getattr(record, field) for field in fields} for record in records])
        return
    table = table_of("replaced", "plugin", "torch", "why")
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
    """Let plugins add their commands, unless one of ours is meant, or none has any: they cost their imports."""
    own = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    asked = next((argument for argument in arguments if not argument.startswith("-")), None)
    if (asked or "").replace("-", "_") in own or (asked is None and "--version" in arguments):
        return
    from onnxport_workbench.plugin_list import may_have_commands

    if may_have_commands():
        from onnxport.kit import load

        before = len(app.registered_commands)
        load().add_commands(app)
        for command in app.registered_commands[before:]:  # their errors are told as ours are
            if command.callback is not None:
                command.callback = guarded(command.callback)


def main() -> None:
    """The console script."""
    try:
        guarded(lambda as_json: _add_plugin_commands(sys.argv[1:]))(as_json="--json" in sys.argv[1:])
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    app()


__all__ = ["INTERNAL", "OK", "REFUSED", "USAGE", "app", "load_example", "main"]

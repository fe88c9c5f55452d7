"""The options that several commands of the command line have, and what their texts mean."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer


class Mutation(str, enum.Enum):
    """Choices of ``--mutation``."""

    outputs = "outputs"
    error = "error"
    drop = "drop"


class Metadata(str, enum.Enum):
    """Choices of ``--metadata``."""

    full = "full"
    module = "module"
    none = "none"


class Dtype(str, enum.Enum):
    """Choices of ``--dtype``."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Format(str, enum.Enum):
    """Formats of ``--quantize``, for the completion of shells."""

    int4 = "int4"
    int8 = "int8"
    uint4 = "uint4"
    uint8 = "uint8"


def _plugin_names() -> Iterator[str]:
    """Names of installed plugins, for the completion of shells; none is imported."""
    from importlib_metadata import entry_points

    yield "builtin"
    yield from sorted({entry.name for entry in entry_points(group="onnxport")})


def _formats() -> list[str]:
    return [each.value for each in Format]


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:FACTORY|FILE.pt2",
        help="A callable that returns (model, args), (model, args, kwargs), a dict with 'model', 'args', 'kwargs' "
        "and options of onnxport.export, an ExportableModule, or a module that has example_inputs; MODULE is "
        "importable or a .py file. Or a saved ExportedProgram.",
    ),
]
OpsetOption = Annotated[int | None, typer.Option("--opset", help="ONNX opset to write, from 13.")]
RuntimeOption = Annotated[
    str | None,
    typer.Option("--runtime", help="Write for this runtime; `onnxport profiles` lists them. 'onnx' for every runtime."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to the standard output.")]
PluginsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        help="Use this installed plugin only (repeatable); 'builtin' for none of them.",
        autocompletion=_plugin_names,
    ),
]

FunctionsOption = Annotated[
    list[str] | None,
    typer.Option("--functions", help="Make the calls of this module class calls of an ONNX function (repeatable)."),
]

PreferOption = Annotated[
    list[str] | None,
    typer.Option(
        "--prefer",
        metavar="OPERATOR=PLUGIN",
        help="Which plugin goes first for an operator, such as aten::gelu=mypack (repeatable).",
    ),
]

QuantizeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--quantize",
        metavar="[NAME=]FORMAT",
        help="Round the weights of products: int4, int8, uint4 or uint8; with the name of a weight or module, its own, "
        "such as lm_head=none (repeatable).",
        autocompletion=_formats,
    ),
]

DtypeOption = Annotated[
    Dtype | None,
    typer.Option("--dtype", help="Write the float32 model in half precision: float16 or bfloat16."),
]

KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="MODULE|OPERATOR",
        help="With --dtype, what stays in float32: the path of a module, such as lm_head, or an operator, such as "
        "aten::exp (repeatable).",
    ),
]

KeepIOOption = Annotated[bool, typer.Option("--keep-io", help="With --dtype, inputs and outputs stay in float32.")]

DynamicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dynamic",
        metavar="INPUT:AXIS[=NAME]",
        help="Leave an axis of an input open, such as x:0=batch, or several: x:0=batch,1=seq (repeatable).",
    ),
]

ImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import this module first, such as one that registers custom operators (repeatable).",
    ),
]

VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Tell the stages with their times, and what is logged.")
]


class UsageError(Exception):
    """What was asked can't be found or read."""


def given(
    opset: int | None,
    plugins: list[str] | None,
    functions: list[str] | None = None,
    prefer: list[str] | None = None,
    runtime: str | None = None,
    quantize: list[str] | None = None,
    dynamic: list[str] | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Options of the command line that go before those of the factory; those that weren't given are left out."""
    options = {
        "opset_version": opset,
        "plugins": plugins,
        "functions": functions,
        "prefer": preferred(prefer),
        "runtime": runtime,
        "quantize": formats(quantize),
        "dynamic_shapes": dynamic_shapes(dynamic),
    }
    said = {name: value.value if isinstance(value, enum.Enum) else value for name, value in others.items()}
    return {name: value for name, value in options.items() if value} | {
        name: value for name, value in said.items() if value is not None
    }


def preferred(prefer: list[str] | None) -> dict[str, str]:
    """The plugin by operator, of ``OPERATOR=PLUGIN``."""
    pairs = {}
    for text in prefer or ():
        operator, separator, plugin = text.partition("=")
        if not (separator and operator.strip() and plugin.strip()):
            raise UsageError(f"--prefer {text}: write it as OPERATOR=PLUGIN, such as aten::gelu=mypack")
        pairs[operator.strip()] = plugin.strip()
    return pairs


def kept(keep: list[str] | None) -> dict[str, str] | None:
    """What stays in float32, as ``export(keep=...)`` takes it; None where nothing is named."""
    return dict.fromkeys(keep, "float32") if keep else None


def formats(quantize: list[str] | None) -> dict[str, str | None]:
    """The format by name, of ``NAME=FORMAT``, or of a format alone, which is for all others."""
    found: dict[str, str | None] = {}
    for text in quantize or ():
        name, separator, form = text.rpartition("=")
        name, form = name.strip() if separator else "*", form.strip()
        if not name or not form:
            raise UsageError(f"--quantize {text}: write it as FORMAT or NAME=FORMAT, such as int4 or lm_head=none")
        if name in found:
            raise UsageError(f"--quantize {text}: {name} has a format already: give one only")
        found[name] = None if form.lower() == "none" else form
    return found


def dynamic_shapes(texts: Sequence[str] | None) -> dict[str, dict[int, Any]]:
    """The dimension by axis by input, of ``INPUT:AXIS=NAME``; ``Dim.DYNAMIC`` where no name is given."""
    found: dict[str, dict[int, Any]] = {}
    for text in texts or ():
        name, separator, axes = text.rpartition(":")
        name = name.strip()
        for part in axes.split(",") if separator and name else ():
            axis, named, dimension = (each.strip() for each in part.partition("="))
            if not axis.removeprefix("-").isdecimal() or (named and not dimension):
                break
            if int(axis) in found.setdefault(name, {}):
                raise UsageError(f"--dynamic {text}: axis {axis} of {name} is given twice: give it once")
            found[name][int(axis)] = dimension or _any_size()
        else:
            if separator and name:
                continue
        raise UsageError(f"--dynamic {text}: write it as INPUT:AXIS=NAME, such as x:0=batch or x:0=batch,1=seq")
    return found


def _any_size() -> Any:
    from torch.export import Dim

    return Dim.DYNAMIC


def names(option: str, texts: Sequence[str] | None) -> list[str] | None:
    """Names that are separated by commas, or given one by one; None where none are."""
    if not texts:
        return None
    found = [name.strip() for text in texts for name in text.split(",")]
    if not all(found):
        raise UsageError(f"{option} {','.join(texts)}: a name is empty: separate names by single commas")
    return found


def renamings(texts: Sequence[str] | None) -> dict[Any, str]:
    """The new name by present name of a dimension, of ``OLD=NEW``."""
    return dict(_assignments("--rename", "OLD=NEW, such as s77=batch", "a new name", texts))


def fixed_sizes(texts: Sequence[str]) -> dict[str, int]:
    """The size by name of a dimension, of ``NAME=SIZE``."""
    found = _assignments("--dim", "NAME=SIZE, such as batch=1", "a size", texts, str.isdecimal)
    return {name: int(size) for name, size in found.items()}


def _assignments(
    option: str, form: str, what: str, texts: Sequence[str] | None, is_right: Callable[[str], bool] = bool
) -> dict[str, str]:
    """The value by name, of ``NAME=VALUE``; each name once.

    Args:
        option: whose values the texts are.
        form: how one is written.
        what: what a name gets.
        texts: as they were given.
        is_right: tells the values that can be used.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, _, value = (part.strip() for part in text.partition("="))
        if not (name and is_right(value)):
            raise UsageError(f"{option} {text}: write it as {form}")
        if name in found:
            raise UsageError(f"{option} {text}: {name} has {what} already: give one only")
        found[name] = value
    return found

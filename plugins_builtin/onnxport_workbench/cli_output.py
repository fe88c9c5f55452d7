"""What the command line prints: JSON for machines on the standard output, failures, and the exit codes."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NoReturn, TextIO

import typer
from onnxport.kit import plain
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from onnxport_workbench.cli_options import UsageError
from onnxport_workbench.json_results import finite

OK, REFUSED, USAGE, INTERNAL = 0, 1, 2, 3


class PlainConsole(Console):
    """Shows what it is given, line by line; nothing in a name or a message is taken for markup or for an order."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text of a line, of a cell or of a status."""
        return super().render_str(plain(text), **options)


errors_console = PlainConsole(stderr=True)
_output: ContextVar[TextIO | None] = ContextVar("_output", default=None)
_details: ContextVar[dict[str, Any] | None] = ContextVar("_details", default=None)


def print_json(data: Any) -> None:
    """Print to the standard output, also while all else that is printed goes to standard error."""
    print(json.dumps(finite(data), indent=2, default=str, allow_nan=False), file=_output.get() or sys.stdout)


@contextlib.contextmanager
def json_alone() -> Iterator[None]:
    """Keep the standard output for JSON: what a model, its module or a library prints goes to standard error."""
    token = _output.set(sys.stdout)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _output.reset(token)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that a command may raise into messages and exit codes; with ``--json`` into an object too.

    Its key ``error`` has type, message and attributes, those of ``OnnxExporterError.as_dict``, and ``exit_code`` the
    exit code.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        as_json = kwargs.get("as_json", False)
        _details.set({})
        try:
            with json_alone() if as_json else contextlib.nullcontext():
                command(*args, **kwargs)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if hasattr(error, "exit_code"):  # typer's own, which it knows how to show
                raise
            _fail(error, as_json)

    return run


def tell_if_it_fails(**details: Any) -> None:
    """Keep what is known of the command's work: a failure prints it too, as keys of the object or as lines."""
    _details.set({**(_details.get() or {}), **details})


def _fail(error: Exception, as_json: bool) -> NoReturn:
    from onnxport import MissingRuntimeError, errors

    if isinstance(error, (UsageError, errors.InputError, errors.PluginError, errors.SaveError, MissingRuntimeError)):
        code = USAGE
    elif isinstance(error, errors.OnnxExporterError):
        code = INTERNAL if isinstance(error, errors.TranslationError) else REFUSED
    else:
        code = INTERNAL
        errors_console.print("".join(traceback.format_exception(error)))
    if as_json:
        print_failure(error, code)
    known = isinstance(error, (UsageError, errors.OnnxExporterError))
    defect = "This is a defect in onnxport or in a plugin; please report it with the lines above."
    errors_console.print(str(error) if known else defect, style="red")
    for page in (_details.get() or {}).get("report") or ():
        errors_console.print(f"report: {page}")
    raise typer.Exit(code)


def print_failure(error: Exception, code: int) -> None:
    """Print an error as a JSON object."""
    if hasattr(error, "as_dict"):
        told = error.as_dict()
    else:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        told = {"type": type(error).__name__, "message": message}
    print_json({"error": told, "exit_code": code, **(_details.get() or {})})


class Commands(TyperGroup):
    """The commands, whose wrong options are JSON too where ``--json`` is among the arguments."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; see click's ``Command.main``."""
        run = functools.partial(super().main, args, prog_name, complete_var, **extra)
        given = sys.argv[1:] if args is None else list(args)
        if not standalone_mode or "--json" not in given:
            return run(standalone_mode=standalone_mode, windows_expand_args=windows_expand_args)
        try:
            sys.exit(run(standalone_mode=False, windows_expand_args=windows_expand_args) or OK)
        except typer.Abort as error:
            code: int = REFUSED
            print_failure(error, code)
        except Exception as error:
            if not hasattr(error, "exit_code") or not hasattr(error, "show"):
                raise
            code = error.exit_code
            error.show()
            print_failure(error, code)
        sys.exit(code)

"""The onnxruntime session that a verification compares with: its options, providers and libraries of operators."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from onnxport import InputError
from onnxport.kit import listed, optional, ort, path_argument, runtime, wrong

_EXACT = "session.disable_quant_qdq"


@dataclass
class SessionChoice:
    """What a caller wants of the session.

    Attributes:
        options: the session's options; None for onnxruntime's defaults.
        providers: execution providers; None for CUDA where it is there, and the CPU.
    """

    options: ort.SessionOptions | None = None
    providers: Sequence[Any] | None = None

    def open(self, model: str | bytes) -> ort.InferenceSession:
        """Open a session on a model's path or bytes."""
        return runtime.session(model, self.providers, self.options)

    @contextmanager
    def exact(self) -> Iterator[SessionChoice]:
        """The same, with what makes onnxruntime compute what the file says.

        By default it rounds what a product with integer weights reads to 8 bits, as
        ``session.qdq_matmulnbits_accuracy_level`` says: an error of about 1 %, in which a wrong file could hide.
        """
        options = self.options
        if options is None:
            yield SessionChoice(exact_options(), self.providers)
            return
        before = options.get_session_config_entry(_EXACT) if _has(options, _EXACT) else "0"
        options.add_session_config_entry(_EXACT, "1")
        try:
            yield self
        finally:
            options.add_session_config_entry(_EXACT, before)


def session_choice(session_options: Any, providers: Any, custom_ops: Any, default: Any = None) -> SessionChoice:
    """The choice that a call's arguments make.

    Args:
        session_options: an ``onnxruntime.SessionOptions``, or None.
        providers: as :class:`onnxruntime.InferenceSession` takes them, or None.
        custom_ops: paths of libraries of operators, which are registered with the options; a path alone is one.
        default: options to take where none are given.

    Raises:
        InputError: an argument is of another type, or a library isn't there or can't be loaded.
    """
    options = optional("session_options", session_options, ort.SessionOptions, "an onnxruntime.SessionOptions")
    options = default if options is None else options
    libraries = [custom_ops] if isinstance(custom_ops, (str, os.PathLike)) else listed(custom_ops)
    if libraries is None:
        raise wrong("custom_ops", custom_ops, "a list of paths of libraries of onnxruntime operators")
    if libraries and options is None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
    for i, library in enumerate(libraries):
        path = path_argument(f"custom_ops[{i}]", library, "the path of a library of onnxruntime operators")
        if not os.path.isfile(path):
            raise InputError(f"custom_ops names {path!r}, which is no file: give its path.", parameter="custom_ops")
        try:
            options.register_custom_ops_library(path)  # type: ignore[union-attr]
        except Exception as error:  # onnxruntime has a class for each of its status codes
            raise InputError(
                f"onnxruntime can't load the library {path!r} of custom_ops: {error}. Build it for this onnxruntime, "
                f"{ort.__version__}.",
                parameter="custom_ops",
            ) from error
    return SessionChoice(options, providers)


def exact_options() -> ort.SessionOptions:
    """Default options with which onnxruntime computes what the file says; see :meth:`SessionChoice.exact`."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(_EXACT, "1")
    return options


def _has(options: ort.SessionOptions, key: str) -> bool:
    try:
        options.get_session_config_entry(key)
    except Exception:  # RuntimeError, or a class of onnxruntime's
        return False
    return True


__all__ = ["SessionChoice", "exact_options", "session_choice"]

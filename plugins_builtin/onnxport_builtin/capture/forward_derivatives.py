"""Forward derivatives (``torch.func.jvp``, ``jacfwd``, ``hessian``, ``linearize``), computed in reverse mode.

torch 2.14 reads sizes as plain numbers where an operand has no tangent, so that forward mode makes a dynamic batch
static; attention has no forward mode. While an export captures, ``J @ t`` is the derivative by ``u`` of
``t @ (J.T @ u)``, which is linear in ``u``. Both passes are in reverse mode. The values are equal up to rounding.

Forward mode is kept where reverse mode would give other values, or none: where what is differentiated goes through
``torch.no_grad``, which forward mode passes, or through a ``torch.autograd.Function`` that has its own ``jvp``, and
where an operator has no second derivative.
"""

from __future__ import annotations

import contextlib
import contextvars
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree
from onnxport import is_in_onnx_export
from onnxport.kit import Replacement, all_applied
from torch._export.utils import _maybe_find_pre_dispatch_tf_mode_for_export
from torch._functorch import autograd_function, eager_transforms
from torch.overrides import TorchFunctionMode

from onnxport_builtin.capture.below_autograd import DerivativesError

_kept: contextvars.ContextVar[bool] = contextvars.ContextVar("whether this export keeps forward mode", default=False)
_watching: contextvars.ContextVar[bool] = contextvars.ContextVar("whether reverse mode is taken", default=False)


@contextlib.contextmanager
def forward_derivatives() -> Iterator[None]:
    """While any thread is in it, torch's functions are replaced."""
    token = _kept.set(False)
    try:
        with all_applied(_replaced()):
            yield
    finally:
        _kept.reset(token)


def _replaced() -> Iterator[Replacement]:
    yield Replacement(eager_transforms, "_jvp_with_argnums", _in_reverse)
    yield Replacement(eager_transforms.linearize, "__code__", lambda original: _linearize.__code__)
    yield Replacement(autograd_function.CustomFunctionHigherOrderOperator, "__call__", _of_no_own_jvp)


def _keep(why: str) -> DerivativesError:
    """The error of this attempt; the next ones keep forward mode."""
    _kept.set(True)
    return DerivativesError(f"Forward mode is kept, since {why}")


def _applies() -> bool:
    return is_in_onnx_export() and not _kept.get() and not torch.compiler.is_dynamo_compiling()


def _in_reverse(original: Callable[..., Any]) -> Callable[..., Any]:
    def jvp(
        func: Callable[..., Any],
        primals: Any,
        tangents: Any,
        argnums: Any,
        *,
        strict: bool = False,
        has_aux: bool,
    ) -> Any:
        numbers = range(len(primals)) if argnums is None else (argnums,) if isinstance(argnums, int) else argnums
        leaves, others = pytree.tree_leaves([primals[i] for i in numbers]), pytree.tree_leaves(tangents)
        if not _applies() or not isinstance(primals, tuple) or not _match(leaves, others):
            return original(func, primals, tangents, argnums, strict=strict, has_aux=has_aux)
        outputs, push, aux = _pushing(func, primals, argnums, strict, has_aux)
        # torch 2.14 differentiates by no argument whose number is negative.
        pushed = push(tuple(pytree.tree_map(torch.zeros_like, t) if i < 0 else t for i, t in zip(numbers, tangents)))
        return (outputs, pushed, aux) if has_aux else (outputs, pushed)

    return jvp


def _match(primals: list[Any], tangents: list[Any]) -> bool:
    """Otherwise torch tells what is wrong."""
    tensors = all(isinstance(leaf, torch.Tensor) for leaf in (*primals, *tangents))
    return tensors and bool(primals) and len(primals) == len(tangents)


def _linearize(func: Any, *primals: Any) -> Any:
    """Stands in torch's function, whoever has imported it; so it looks up this module itself."""
    from onnxport_builtin.capture import forward_derivatives

    return forward_derivatives.linearized(func, *primals)


_linearize_of_torch = types.FunctionType(eager_transforms.linearize.__code__, vars(eager_transforms))


def linearized(func: Callable[..., Any], *primals: Any) -> Any:
    """``torch.func.linearize``."""
    if not _applies():
        return _linearize_of_torch(func, *primals)
    outputs, push, _ = _pushing(func, primals, None, False, False)
    return outputs, lambda *tangents: push(tangents)


def _pushing(func: Callable[..., Any], primals: tuple[Any, ...], argnums: Any, strict: bool, has_aux: bool) -> Any:
    """What the function returns, and what makes the tangents of that from those of its arguments."""
    if _maybe_find_pre_dispatch_tf_mode_for_export() is not None:
        raise DerivativesError("The forward takes forward derivatives")
    spec: Any = None

    def differentiable(*args: Any) -> Any:
        nonlocal spec
        token = _watching.set(True)
        try:
            with _GradientsOff():
                result = func(*args)
        finally:
            _watching.reset(token)
        aux: Any = ()
        if has_aux:
            result, aux = result
        flat, spec = pytree.tree_flatten(result)
        if strict and not all(leaf.requires_grad for leaf in flat):
            raise RuntimeError("jvp with strict=True: an output doesn't depend on the inputs. Leave strict out")
        indices = [i for i, leaf in enumerate(flat) if leaf.is_floating_point() or leaf.is_complex()]
        if not indices:
            raise _keep("the function returns no floating point numbers")
        return tuple(flat[i] for i in indices), (flat, aux)

    with _told():
        outputs, pull, (flat, aux) = eager_transforms._vjp_with_argnums(
            differentiable, *primals, argnums=argnums, has_aux=True
        )
        _, back = eager_transforms._vjp_with_argnums(pull, tuple(torch.zeros_like(output) for output in outputs))

    def push(tangents: tuple[Any, ...]) -> Any:
        with _told():
            (found,) = back(tangents[0] if isinstance(argnums, int) else tangents)
        waiting = iter(found)
        return pytree.tree_unflatten(
            [
                next(waiting) if leaf.is_floating_point() or leaf.is_complex() else torch.zeros_like(leaf)
                for leaf in flat
            ],
            spec,
        )

    return pytree.tree_unflatten(flat, spec), push, aux


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "not implemented" not in str(error) or isinstance(error, NotImplementedError):
            raise
        raise _keep(f"an operator has no second derivative ({str(error).splitlines()[0]})") from error


class _GradientsOff(TorchFunctionMode):
    """Finds where reverse mode loses a gradient that forward mode keeps."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not torch.is_grad_enabled() and getattr(func, "__name__", "") not in ("__get__", "_set_grad_enabled"):
            leaves = pytree.tree_leaves((args, kwargs))
            if any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in leaves):
                raise _keep("the function computes with its arguments under torch.no_grad(), which forward mode passes")
        return func(*args, **(kwargs or {}))


def _of_no_own_jvp(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        if _watching.get() and _applies() and function.jvp is not torch.autograd.Function.jvp:
            raise _keep(f"{function.__name__} has its own jvp")
        return original(self, function, *args, **kwargs)

    return call

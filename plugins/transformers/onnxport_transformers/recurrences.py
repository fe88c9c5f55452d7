"""Recurrences that transformers computes token by token, or chunk by chunk, in a loop of Python.

A capture would unroll the loop for the length of its example. While one runs, each of these functions is another that
computes the same numbers with one ``scan`` over the sequence, which becomes one ``Scan``: any length, and time that
grows with it.

::

    state before token t, and what the token brings -> step -> state after it, and what the token gives

A chunked form has products of whole chunks, and pads the sequence to full ones, so that a single token costs as much as
a chunk; here it costs one step. The letters of shapes: B batch, S sequence, H heads, K key and V value channels of a
head, C channels, N numbers of a state.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from onnxport.kit import Replacement, all_applied
from torch import Tensor
from torch.nn import functional

_Step = Callable[..., tuple[tuple[Tensor, ...], Tensor]]

_continued: ContextVar[bool] = ContextVar("continued", default=False)
"""Whether a scan without an initial state goes on from the state that the layer has just read of its cache."""

_read: ContextVar[Tensor | None] = ContextVar("read", default=None)
"""The recurrent state that a layer has read of its cache last."""


def scanned(step: _Step, states: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Take a step for each token.

    Args:
        step: takes the states and a token's inputs; returns the new states and the token's result.
        states: before the first token.
        inputs: tensors whose first axis is the sequence.

    Returns:
        The states after the last token, and the results along a first axis.
    """
    if not torch.compiler.is_exporting():
        results = []
        for token in zip(*(value.unbind(0) for value in inputs), strict=True):
            states, result = step(*states, *token)
            results.append(result)
        return tuple(states), torch.stack(results)
    from torch._higher_order_ops import scan

    def combine(carried: Sequence[Tensor], token: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        after, result = step(*carried, *token)
        return [state.clone() for state in after], result.clone()

    # torch takes states that begin with one tensor for one state: each is a tensor of its own
    after, results = scan(combine, [state.clone() for state in states], list(inputs))
    return tuple(after), results


# Gated delta rule: Qwen3-Next, Qwen3.5, OLMo hybrid, Kimi Linear ------------------------------------------------------


def delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    output_final_state: bool,
    use_qk_l2norm_in_kernel: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gated delta rule, https://arxiv.org/abs/2412.06464, equation 10, with a decay for each head or key channel.

    Args:
        query, key: (B, S, H, K); their heads may be fewer than those of ``value``.
        value: (B, S, H, V).
        g: logarithm of the decay, (B, S, H) or (B, S, H, K).
        beta: how much of the old value is replaced, (B, S, H).
        initial_state: (B, H, K, V); None for zeros.
        output_final_state: whether the last state is returned.
        use_qk_l2norm_in_kernel: whether queries and keys get a length of 1.

    Returns:
        (B, S, H, V) in the query's dtype, and the last state in float32.
    """
    dtype = query.dtype
    times = value.shape[2] // key.shape[2]
    query, key, value, g, beta = (each.transpose(0, 1).float() for each in (query, key, value, g, beta))
    if times > 1:
        query, key = query.repeat_interleave(times, 2), key.repeat_interleave(times, 2)
    if use_qk_l2norm_in_kernel:
        query, key = (each * torch.rsqrt(each.square().sum(-1, keepdim=True) + 1e-6) for each in (query, key))
    query = query * query.shape[-1] ** -0.5
    decay = (g if g.dim() == 4 else g.unsqueeze(-1)).exp().unsqueeze(-1)
    if initial_state is None:
        initial_state = value.new_zeros((value.shape[1], value.shape[2], key.shape[3], value.shape[3]))

    def step(state: Tensor, q: Tensor, k: Tensor, v: Tensor, d: Tensor, b: Tensor) -> Any:
        """``S = d S; S = S + k (b (v - k S)); q S``, with rows for vectors."""
        state = state * d
        state = state + k.transpose(-1, -2) * ((v - k @ state) * b)
        return (state,), (q @ state).squeeze(-2)

    rows = [each.unsqueeze(-2) for each in (query, key, value)]
    (state,), results = scanned(step, [initial_state.float()], [*rows, decay, beta[..., None, None]])
    return results.transpose(0, 1).to(dtype), state if output_final_state else None


def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    chunk_size: int = 64,
    initial_state: Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """``torch_chunk_gated_delta_rule`` and the other forms of the rule, which have the same arguments."""
    return delta_rule(query, key, value, g, beta, initial_state, output_final_state, use_qk_l2norm_in_kernel)


# Selective state spaces: Mamba, Jamba, Zamba, and Mamba-2, Bamba, Falcon-H1 -------------------------------------------


def selective_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    use_mambapy: bool = False,
    use_associative_scan: bool = False,
    **_: Any,
) -> Any:
    """``mamba_selective_scan``, https://arxiv.org/abs/2312.00752, algorithm 2; it goes on from the layer's state.

    Args:
        hidden_states, dt, z: (B, C, S).
        A: (C, N).
        B, C: (B, N, S).
        D, delta_bias: (C).
    """
    dtype = hidden_states.dtype
    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype)[..., None]
    if delta_softplus:
        dt = functional.softplus(dt)
    batch, channels, _length = hidden_states.shape
    before, wide = _read.get(), torch.promote_types(A.dtype, torch.float32)
    if before is None or not _continued.get():
        before = hidden_states.new_zeros((batch, channels, A.shape[1]))
    _read.set(None)

    def step(state: Tensor, x: Tensor, delta: Tensor, b: Tensor, c: Tensor) -> Any:
        state = state * torch.exp(A * delta) + (delta * b.float()) * x.float()
        return (state,), (state.to(dtype) @ c).squeeze(-1)

    columns = [each.permute(2, 0, 1).unsqueeze(-1) for each in (hidden_states, dt)]
    inputs = [*columns, B.permute(2, 0, 1).unsqueeze(-2), C.permute(2, 0, 1).unsqueeze(-1)]
    (state,), results = scanned(step, [before.to(wide)], inputs)
    result = results.permute(1, 2, 0)
    if D is not None:
        result = result + hidden_states * D[None, :, None]
    if z is not None:
        result = result * functional.silu(z)
    return (result, state) if return_last_state else result


def grouped_scan(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **_: Any,
) -> Any:
    """``mamba2_chunk_scan``, https://arxiv.org/abs/2405.21060, equation 4, with a number of decay for each head.

    Args:
        hidden_states: (B, S, H, P).
        dt: (B, S, H).
        A, D, dt_bias: (H).
        B, C: (B, S, G, N), where each of the G groups serves as many heads.
        initial_states: (B, H, P, N); None for zeros.
    """
    if dt_bias is not None:
        dt = dt + dt_bias.to(dt.dtype)
    if dt_softplus:
        dt = functional.softplus(dt)
    dt = dt.clamp(min=dt_limit[0], max=dt_limit[1]).float()
    batch, _length, heads, width = hidden_states.shape
    x = hidden_states.float()
    times = heads // B.shape[2]
    B, C = (each.float().repeat_interleave(times, 2, output_size=heads) for each in (B, C))
    if initial_states is None:
        initial_states = x.new_zeros((batch, heads, width, B.shape[3]))

    def step(state: Tensor, new: Tensor, decay: Tensor, b: Tensor, c: Tensor) -> Any:
        state = state * decay + new * b
        return (state,), (state @ c).squeeze(-1)

    new = (x * dt.unsqueeze(-1)).unsqueeze(-1)
    decay = (A.float() * dt).exp()[..., None, None]
    inputs = [each.transpose(0, 1) for each in (new, decay, B.unsqueeze(-2), C.unsqueeze(-1))]
    (state,), results = scanned(step, [initial_states.float()], inputs)
    result = results.transpose(0, 1)
    if D is not None:
        result = result + D[..., None] * x
    return (result, state) if return_final_states else result


# RWKV -----------------------------------------------------------------------------------------------------------------


def weighted_average(
    time_decay: Tensor,
    time_first: Tensor,
    key: Tensor,
    value: Tensor,
    state: Any = None,
    return_state: bool = False,
) -> Any:
    """``rwkv_linear_attention``, https://arxiv.org/abs/2305.13048, appendix D: sums scaled by their largest exponent.

    Args:
        time_decay, time_first: (C).
        key, value: (B, S, C).
        state: numerator, denominator and largest exponent, (B, C) each; None for none.
    """
    if state is None:
        zeros = torch.zeros_like(key[:, 0], dtype=torch.float32)
        states = [zeros, zeros, zeros - 1e38]
    else:
        states = list(state)
    decay = -torch.exp(time_decay)

    def step(above: Tensor, below: Tensor, top: Tensor, k: Tensor, v: Tensor) -> Any:
        k = k.float()
        now = torch.maximum(top, k + time_first)
        old, new = torch.exp(top - now), torch.exp(k + time_first - now)
        result = (old * above + new * v) / (old * below + new)
        after = torch.maximum(top + decay, k)
        old, new = torch.exp(top + decay - after), torch.exp(k - after)
        return (old * above + new * v, old * below + new, after), result.to(key.dtype)

    last, results = scanned(step, states, [key.transpose(0, 1), value.transpose(0, 1)])
    return results.transpose(0, 1), list(last) if return_state or state is not None else None


# xLSTM ----------------------------------------------------------------------------------------------------------------


def matrix_memory(original: Callable[..., Any]) -> Callable[..., Any]:
    """``xLSTMBackend.forward`` for inference, https://arxiv.org/abs/2405.04517, equations 19 to 27.

    Queries, keys and values are (B, H, S, K or V), gates (B, H, S); states (B, H, K, V), (B, H, K) and (B, H, 1).
    """

    def forward(
        self: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        igate: Tensor,
        fgate: Tensor,
        c_initial: Tensor | None = None,
        n_initial: Tensor | None = None,
        m_initial: Tensor | None = None,
        return_last_states: bool | None = None,
        mode: Any = None,
    ) -> Any:
        if "inference" not in (mode or self.config.mode):
            given = (c_initial, n_initial, m_initial, return_last_states, mode)
            return original(self, query, key, value, igate, fgate, *given)
        dtype, wide = query.dtype, getattr(torch, self.config.inference_state_dtype)
        shape = (key.shape[0], key.shape[1], key.shape[3])
        sizes = ((c_initial, (*shape, value.shape[3])), (n_initial, shape), (m_initial, (*shape[:2], 1)))
        before = [query.new_zeros(size) if state is None else state for state, size in sizes]

        def step(
            memory: Tensor, norm: Tensor, top: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor
        ) -> Any:
            kept = functional.logsigmoid(f) + top
            after = torch.maximum(kept, i)
            old, new = torch.exp(kept - after), torch.exp(i - after)
            memory = old.unsqueeze(-1) * memory + new.unsqueeze(-1) * (k.unsqueeze(-1) @ v.unsqueeze(-2))
            norm = old * norm + new * k
            row = (q * q.shape[-1] ** -0.5).unsqueeze(-2)
            above = (row @ memory.to(dtype)).squeeze(-2).to(wide)
            size = (row @ norm.unsqueeze(-1).to(dtype)).squeeze(-1).abs()
            below = (torch.maximum(size, torch.exp(-after)) + self.config.eps).to(wide)
            return (memory.to(wide), norm.to(wide), after.to(wide)), (above / below).to(dtype)

        inputs = [each.movedim(2, 0) for each in (query, key, value, igate.unsqueeze(-1), fgate.unsqueeze(-1))]
        last, results = scanned(step, [state.to(wide) for state in before], inputs)
        return results.movedim(0, 2), last

    return forward


# Their places ---------------------------------------------------------------------------------------------------------

_SUBSTITUTES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"), gated_delta_rule),
    **dict.fromkeys(("chunk_kimi_delta_attention", "recurrent_kimi_delta_attention"), gated_delta_rule),
    "mamba_selective_scan": selective_scan,
    "mamba2_chunk_scan": grouped_scan,
    "rwkv_linear_attention": weighted_average,
}
"""Functions of transformers, and what computes the same."""

_WHY = "it is a loop over the sequence, of the example's length"


def replacements(model: torch.nn.Module) -> Iterator[Replacement]:
    """The functions that the classes of a model call, each where its module of transformers has it."""
    classes = {cls for module in model.modules() for cls in type(module).__mro__}
    for cls in classes:
        if cls.__name__ == "xLSTMBackend" and cls.__module__.startswith("transformers."):
            yield Replacement(cls, "forward", matrix_memory, why=_WHY)
    for name in sorted({cls.__module__ for cls in classes}):
        space = sys.modules.get(name)
        for function, substitute in _SUBSTITUTES.items():
            current = getattr(space, function, None)
            if current is substitute or _is_known(current, substitute):  # a capture has replaced it already
                yield Replacement(space, function, lambda _, substitute=substitute: substitute, why=_WHY)


@contextlib.contextmanager
def continued(model: torch.nn.Module) -> Iterator[None]:
    """Within, a model goes on from its states in calls of several tokens, traced or not.

    Layers of Mamba's first kind start again there; all others do it themselves, and are replaced when they are traced.
    """
    found = list(replacements(model))
    if not torch.compiler.is_exporting():
        found = [each for each in found if each.name == "mamba_selective_scan"]
    if not found:
        yield
        return

    def remembering(original: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
        def get_recurrent_state(self: Any, *args: Any, **kwargs: Any) -> Tensor | None:
            state = original(self, *args, **kwargs)
            _read.set(state)
            return state

        return get_recurrent_state

    found.append(Replacement("transformers.cache_utils:Cache", "get_recurrent_state", remembering))
    token = _continued.set(True)
    try:
        with all_applied(found):
            yield
    finally:
        _continued.reset(token)
        _read.set(None)


def _is_known(function: Any, substitute: Callable[..., Any]) -> bool:
    """Whether it is transformers' own, with no argument that its substitute doesn't have."""
    if function is None or not str(getattr(function, "__module__", "")).startswith("transformers."):
        return False
    try:
        takes = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    has = inspect.signature(substitute).parameters
    return all(each.name in has or each.kind is inspect.Parameter.VAR_KEYWORD for each in takes)

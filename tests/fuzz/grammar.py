"""Random statements of Python over tensors: views, new tensors, writes, indexing, promotion and sizes.

A statement is a line of source. It is chosen with the values at hand (at all sizes at once), so that eager torch takes
most of them; what it refuses is left out by the caller. Values stay small whole numbers and halves, so that the
comparison with the exported file is exact nearly everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Tensor = torch.Tensor
DTYPES = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
INPUTS = ["float32"] * 5 + ["float64", "float16", "int64", "int64", "int32", "int8", "uint8", "bool", "bool"]
SHAPES: list[tuple[int | str, ...]] = [
    ("n", 4, 3),
    (2, "n", 3),
    (4, "n"),
    ("n", 3),
    ("n",),
    ("n", 1, 3),
    (4, 3),
    (1,),
    (),
]


class Scope:
    """The variables of a program with their values at each size."""

    def __init__(self, rng: random.Random, values: list[dict[str, Any]]) -> None:
        self.rng, self.values = rng, values
        self.ends: set[str] = set()  # names that are only returned: their sizes depend on values
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def tensors(self, accept: Callable[[Tensor], bool] = lambda t: True) -> list[str]:
        first = self.values[0]
        return [
            name
            for name, value in first.items()
            if isinstance(value, Tensor) and name not in self.ends and all(accept(v[name]) for v in self.values)
        ]

    def pick(self, accept: Callable[[Tensor], bool] = lambda t: True) -> str:
        """A tensor, later ones more often."""
        names = self.tensors(accept)
        if not names:
            raise NothingFitsError
        return names[max(self.rng.randrange(len(names)), self.rng.randrange(len(names)))]

    def sizes(self, name: str) -> list[torch.Size]:
        return [v[name].shape for v in self.values]

    def rank(self, name: str) -> int:
        return self.values[0][name].dim()

    def dtype(self, name: str) -> torch.dtype:
        return self.values[0][name].dtype

    def axis(self, name: str, accept: Callable[[int], bool] = lambda size: True) -> int:
        axes = [i for i in range(self.rank(name)) if all(accept(s[i]) for s in self.sizes(name))]
        if not axes:
            raise NothingFitsError
        axis = self.rng.choice(axes)
        return axis - self.rank(name) if self.rng.random() < 0.3 else axis

    def least(self, name: str, axis: int) -> int:
        return min(s[axis] for s in self.sizes(name))

    def size(self, name: str, axis: int) -> str:
        """The source of a size: a number where it's fixed, an expression elsewhere."""
        found = {s[axis] for s in self.sizes(name)}
        return str(found.pop()) if len(found) == 1 and self.rng.random() < 0.7 else f"{name}.shape[{axis}]"

    def integer(self, most: int | None = None) -> str:
        """The source of an integer: literal, variable or a size."""
        names = [name for name, value in self.values[0].items() if isinstance(value, int)]
        if names and self.rng.random() < 0.4:
            return self.rng.choice(names)
        return str(self.rng.randint(1, 3 if most is None else max(1, most)))


class NothingFitsError(Exception):
    """Nothing at hand suits this kind of statement."""


class Kind(NamedTuple):
    name: str
    weight: int
    make: Callable[[Scope], str]


KINDS: list[Kind] = []


def kind(weight: int = 1) -> Callable[[Callable[[Scope], str]], Callable[[Scope], str]]:
    def register(make: Callable[[Scope], str]) -> Callable[[Scope], str]:
        KINDS.append(Kind(make.__name__, weight, make))
        return make

    return register


def scalar(scope: Scope) -> str:
    return scope.rng.choice(["2", "3", "-1", "0.5", "2.0", "True", "1", "-2.5"])


def bound(scope: Scope, name: str, axis: int) -> str:
    """One end of a slice: absent, a number that may lie outside, or an expression of sizes."""
    rng = scope.rng
    return rng.choice(
        [
            "",
            "",
            str(rng.randint(-4, 5)),
            str(rng.randint(0, 3)),
            f"{name}.shape[{axis}] {rng.choice('-+')} 1",
            f"{name}.shape[{axis}] // 2",
            scope.integer(),
        ]
    )


def item(scope: Scope, name: str, axis: int) -> str:
    """What stands at an axis inside the brackets."""
    rng, least = scope.rng, scope.least(name, axis)
    choice = rng.random()
    if choice < 0.25 and least:
        return str(rng.randrange(-least, least))
    if choice < 0.4:
        return ":"
    if choice < 0.5:
        return f"::{rng.randint(1, 3)}"
    step = f":{rng.randint(1, 3)}" if rng.random() < 0.2 else ""
    return f"{bound(scope, name, axis)}:{bound(scope, name, axis)}{step}"


def simple_index(scope: Scope, name: str) -> str:
    """Numbers, slices, None and an ellipsis: what makes a view."""
    rng, rank = scope.rng, scope.rank(name)
    if not rank:
        return rng.choice(["...", "None", "()"])
    count = rng.randint(1, rank)
    parts = [item(scope, name, i) for i in range(count)]
    if rng.random() < 0.3:
        tail = rng.randint(0, rank - count)
        parts = [*parts, "...", *(item(scope, name, rank - tail + i) for i in range(tail))]
    if rng.random() < 0.2:
        parts.insert(rng.randint(0, len(parts)), "None")
    return ", ".join(parts)


def numbers(scope: Scope, least: int, unique: bool) -> str:
    """The source of an index tensor for an axis of that many elements, or of a list."""
    rng = scope.rng
    if not least:
        raise NothingFitsError
    if unique:
        picked = rng.sample(range(least), min(least, rng.randint(1, 3)))
        picked = [i - least if rng.random() < 0.3 else i for i in picked]
    else:
        picked = [rng.randrange(-least, least) for _ in range(rng.randint(1, 3))]
        named = scope.tensors(lambda t: bool(t.dtype == torch.int64 and t.numel() and t.abs().max() < least))
        if named and rng.random() < 0.4:
            return rng.choice(named)
    return f"torch.tensor({picked})" if rng.random() < 0.8 else str(picked)


def mixed_index(scope: Scope, name: str, unique: bool = False) -> str:
    """At least one index tensor among numbers and slices; `unique` for writes."""
    rng, rank = scope.rng, scope.rank(name)
    if not rank:
        raise NothingFitsError
    count = rng.randint(1, rank)
    parts = [item(scope, name, i) for i in range(count)]
    where = rng.sample(range(count), 1 if unique or rng.random() < 0.7 else min(count, 2))
    for i in where:
        parts[i] = numbers(scope, scope.least(name, i), unique)
    if len(where) == 2:  # that broadcast
        parts[where[0]] = numbers(scope, scope.least(name, where[0]), True).replace("torch.tensor", "column")
    if rng.random() < 0.15:
        parts.insert(rng.randint(0, len(parts)), rng.choice(["None", "..."]))
    return ", ".join(parts)


def mask_of(scope: Scope, name: str) -> str:
    """A boolean tensor that fits the leading axes of a tensor."""
    rng, rank = scope.rng, scope.rank(name)
    fitting = [
        m
        for m in scope.tensors(lambda t: t.dtype == torch.bool)
        if all(v[m].dim() <= rank and v[m].shape == v[name].shape[: v[m].dim()] for v in scope.values)
    ]
    if fitting and rng.random() < 0.5:
        return rng.choice(fitting)
    condition = rng.choice([f"{name} > 0", f"{name} != 1", f"{name} <= -1"])
    if rank > 1 and rng.random() < 0.3:
        return f"({condition})[..., 0]" if rank == 2 else f"({condition}).any(-1)"
    return condition


def operand(scope: Scope, name: str) -> str:
    """What a tensor is combined with: a scalar, a number made of sizes, or a tensor that broadcasts to it."""
    rng = scope.rng
    if rng.random() < 0.3:
        return scalar(scope)
    if rng.random() < 0.1:
        return rng.choice([f"{name}.numel()", scope.integer(), "torch.tensor(2)", "torch.tensor(1.5)"])

    def fits(other: str) -> bool:
        pairs = [(v[name].shape, v[other].shape) for v in scope.values]
        return all(a == b or b in (a[-1:], a[:0]) or _broadcasts(a, b) for a, b in pairs)

    names = [other for other in scope.tensors() if fits(other)]
    return rng.choice(names) if names else scalar(scope)


def _broadcasts(a: torch.Size, b: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(a, b).numel() < 400
    except RuntimeError:
        return False


def dtype_of(scope: Scope) -> str:
    return f"torch.{scope.rng.choice(DTYPES)}"


def _small(t: Tensor) -> bool:
    return t.numel() < 80


# Views


@kind(8)
def slices(s: Scope) -> str:
    t = s.pick()
    return f"{s.new()} = {t}[{simple_index(s, t)}]"


@kind(3)
def transposed(s: Scope) -> str:
    t = s.pick(lambda t: t.dim() > 1)
    how = s.rng.choice(["transpose({a}, {b})", "movedim({a}, {b})", "swapaxes({a}, {b})", "mT", "permute({p})"])
    order = s.rng.sample(range(s.rank(t)), s.rank(t))
    return f"{s.new()} = {t}." + how.format(a=s.axis(t), b=s.axis(t), p=", ".join(map(str, order)))


@kind(5)
def reshaped(s: Scope) -> str:
    t = s.pick(lambda t: t.dim() > 0)
    rank, rng = s.rank(t), s.rng
    shape = [s.size(t, i) for i in range(rank)]
    if rank > 1:
        at = rng.randrange(rank - 1)
        merged = [*shape[:at], f"{shape[at]} * {shape[at + 1]}", *shape[at + 2 :]]
    else:
        merged = [*shape, "1"]
    split = rng.choice([["2", "-1"], ["-1", "3"], ["-1", "2", "2"], ["-1", shape[-1]], [shape[0], "-1"], ["-1"]])
    wanted = rng.choice([merged, split, ["-1", *shape[1:]], [*shape[:-1], "-1"], ["1", *shape], [*shape[1:], shape[0]]])
    how = rng.choice(["view", "reshape", "reshape"])
    if rng.random() < 0.2:
        i = rng.randrange(rank)
        return f"{s.new()} = {t}.flatten({i}, {rng.randrange(i, rank)})"
    if rng.random() < 0.15:
        return f"{s.new()} = {t}.unflatten({s.axis(t)}, ({rng.choice(['2, -1', '-1, 3', '1, -1'])}))"
    return f"{s.new()} = {t}.{how}({', '.join(wanted)})"


@kind(4)
def axes_added(s: Scope) -> str:
    t, rng = s.pick(lambda t: t.dim() < 4 and _small(t)), s.rng
    rank = s.rank(t)
    how = rng.choice(
        [
            "unsqueeze({i})",
            "unsqueeze({i}).expand({shape})",
            "expand(2, {all})",
            "squeeze()",
            "squeeze({a})",
            "broadcast_to((2, {all}))",
            "expand(1, {keep})",
            "squeeze(({a},))",
        ]
    )
    i = rng.randint(0, rank)
    shape = ["-1"] * rank
    shape.insert(i, rng.choice(["2", s.integer(2)]))
    text = how.format(
        i=i,
        shape=", ".join(shape),
        all=", ".join(f"{t}.shape[{k}]" for k in range(rank)),
        keep=", ".join(["-1"] * rank),
        a=s.axis(t) if rank else 0,
    )
    return f"{s.new()} = {t}.{text}".replace(", )", ")").replace(", ))", "))")


@kind(5)
def windows(s: Scope) -> str:
    t, rng = s.pick(lambda t: t.dim() > 0), s.rng
    a = s.axis(t)
    rank = s.rank(t)
    if rank > 1 and rng.random() < 0.4:
        i, j = rng.sample(range(rank), 2)
        return f"{s.new()} = {t}.diagonal({rng.randint(-1, 1)}, {i}, {j})"
    if rng.random() < 0.4:
        return f"{s.new()} = {t}.as_strided(({rng.randint(1, 3)}, 2), ({rng.randint(1, 3)}, 1), {rng.randint(0, 2)})"
    return f"{s.new()} = {t}.unfold({a}, {rng.randint(1, 3)}, {rng.randint(1, 3)})"


@kind(5)
def pieces(s: Scope) -> str:
    t, rng = s.pick(lambda t: t.dim() > 0), s.rng
    a = s.axis(t)
    size = f"{t}.shape[{a}]"
    how = rng.choice(
        [
            f"chunk({rng.randint(1, 3)}, {a})",
            f"split({rng.randint(1, 3)}, {a})",
            f"split([1, {size} - 1], {a})",
            f"tensor_split({rng.randint(2, 3)}, {a})",
            f"tensor_split([1, 2], {a})",
            f"unbind({a})",
            f"split([{size} // 2, {size} - {size} // 2], {a})",
        ]
    )
    if rng.random() < 0.25:
        return (
            f"{s.new()} = {t}.narrow({a}, {rng.randint(0, 1)}, {rng.choice(['1', '2', f'{size} - 1', f'{size} // 2'])})"
        )
    if rng.random() < 0.2 and s.least(t, a):
        return f"{s.new()} = {t}.select({a}, {rng.randrange(-s.least(t, a), s.least(t, a))})"
    return f"{s.new()} = {t}.{how}[{rng.choice([0, 0, 1, -1])}]"


# New tensors


@kind(8)
def arithmetic(s: Scope) -> str:
    t, rng = s.pick(), s.rng
    other = operand(s, t)
    sign = rng.choice(["+", "-", "*", "+", "*", "/", "//", "%", "**", "==", "<", ">=", "&", "|", "^"])
    if sign in ("/", "//", "%"):
        other = rng.choice(["2", "4", "-2", "2.0", "torch.tensor(2)", f"{t}.shape[0]"])
    if sign == "**":
        other = rng.choice(["2", "1", "2.0", "torch.tensor(2)"])
    left, right = (t, other) if rng.random() < 0.8 or sign in ("/", "//", "%", "**") else (other, t)
    return f"{s.new()} = {left} {sign} {right}"


@kind(5)
def promoted(s: Scope) -> str:
    t, rng = s.pick(), s.rng
    o = operand(s, t)
    how = rng.choice(
        [
            "torch.where({t} > 0, {t}, {o})",
            "torch.where({t} > 0, {o}, {t})",
            "torch.maximum({t}, {u})",
            "torch.add({t}, {o}, alpha=2)",
            "torch.clamp({t}, max={o})",
            "{t}.clamp(-1, 2.5)",
            "torch.mul({t}, {o})",
            "torch.sub({t}, {o})",
            "torch.rsub({t}, {o})",
            "torch.minimum({t}, {u})",
            "torch.eq({t}, {o})",
            "{t}.to({e})",
            "{t}.clamp(0, 9).to({d})",
            "{t}.type_as({u})",
            "torch.ge({t}, {u})",
            "torch.logical_and({t}, {u})",
            "torch.bitwise_xor({t}, {u})",
            "torch.floor_divide({t}, 2)",
            "torch.true_divide({t}, 2)",
            "torch.remainder({t}, 3)",
            "torch.fmod({t}, 3)",
            "{t}.masked_fill({t} > 1, {c})",
            "torch.square({t})",
            "-{t}",
            "abs({t})",
            "{t}.relu()",
            "{t}.sign()",
        ]
    )
    return f"{s.new()} = " + how.format(
        t=t, o=o, u=s.pick(), d=dtype_of(s), c=scalar(s), e=dtype_of(s).replace("uint8", "int8")
    )


@kind(5)
def reduced(s: Scope) -> str:
    t, rng = s.pick(), s.rng
    a = s.axis(t) if s.rank(t) else 0
    keep = rng.choice(["", ", keepdim=True"])
    how = rng.choice(
        [
            "sum({a}{k})",
            "sum()",
            "amax({a}{k})",
            "amin({a}{k})",
            "any({a}{k})",
            "all({a})",
            "cumsum({a})",
            "argmax({a}{k})",
            "sum({a}, dtype={d})",
            "prod({a})",
            "max({a}).values",
            "min()",
            "mean({a}{k})",
            "sort({a}, stable=True).values",
            "argsort({a}, stable=True)",
            "count_nonzero({a})",
            "cumprod({a})",
            "flip({a})",
            "roll(1, {a})",
            "topk(1, {a}).values",
            "logical_not()",
            "max()",
            "diff(dim={a})",
        ]
    )
    return f"{s.new()} = {t}." + how.format(a=a, k=keep, d=dtype_of(s))


@kind(5)
def joined(s: Scope) -> str:
    t, rng = s.pick(lambda t: t.dim() > 0 and _small(t)), s.rng
    a, rank = s.axis(t), s.rank(t)
    u = rng.choice([o for o in s.tensors() if all(v[o].shape == v[t].shape for v in s.values)])
    repeats = ", ".join(rng.choice(["1", "2", s.integer(2)]) for _ in range(rank))
    how = rng.choice(
        [
            "torch.cat([{t}, {u}], {a})",
            "torch.stack([{t}, {u}], {a})",
            "torch.cat([{t}, {t}[:1]])",
            "{t}.repeat({r})",
            "{t}.repeat(2, {r})",
            "torch.tile({t}, (2,))",
            "{t}.repeat_interleave(2, {a})",
            "F.pad({t}, ({p}, {q}))",
            "F.pad({t}, ({p}, {q}), value={c})",
            "{t}.roll({p}, {a})",
            "F.pad({t}, (0, {i}))",
            "torch.cat([{t}.new_zeros({s}), {t}], 0)",
            "torch.hstack([{t}, {u}])",
            "F.pad({t}, (-1, {q}))",
            "{t}.tril()",
            "{t}.triu(1)",
            "torch.outer({t}.flatten()[:3], {u}.flatten()[:2])",
        ]
    )
    shape = ", ".join([rng.choice(["1", s.integer(2)]), *(f"{t}.shape[{i}]" for i in range(1, rank))])
    return f"{s.new()} = " + how.format(
        t=t,
        u=u,
        a=a,
        r=repeats,
        p=rng.randint(0, 2),
        q=rng.randint(0, 2),
        c=rng.choice(["1", "2", "0"]),
        i=s.integer(2),
        s=shape,
    )


@kind(4)
def created(s: Scope) -> str:
    t, rng = s.pick(), s.rng
    k = s.integer()
    if s.rank(t):
        k = rng.choice([k, f"{t}.shape[{s.axis(t)}]"])
    how = rng.choice(
        [
            "torch.arange({k})",
            "torch.arange(0, {k}, 2)",
            "torch.arange({k}, dtype={d})",
            "{t}.new_zeros({k}, 2)",
            "{t}.new_ones({k})",
            "{t}.new_full(({k}, 1), {c})",
            "torch.zeros({k}, 3, dtype={d})",
            "torch.full(({k},), {c})",
            "torch.ones_like({t})",
            "torch.zeros_like({t}, dtype={d})",
            "torch.full_like({t}, {c})",
            "torch.tensor({k})",
            "torch.eye({k})",
            "torch.arange({k}) * 0.5",
            "torch.empty_like({t}).fill_({c})",
            "torch.tensor([{k}, 1])",
            "{t}.new_tensor(2)",
            "{t}.clone()",
            "torch.arange({k} - 1, -1, -1)",
            "torch.linspace(0, 1, {k} + 1)",
            "torch.ones({k}, {k}).tril()",
            "torch.scalar_tensor({c})",
            "torch.full((), {k})",
        ]
    )
    return f"{s.new()} = " + how.format(t=t, k=k, d=dtype_of(s), c=scalar(s))


@kind(5)
def numbers_of_sizes(s: Scope) -> str:
    t, rng = s.pick(lambda t: t.dim() > 0), s.rng
    a = s.axis(t)
    size = f"{t}.shape[{a}]"
    how = rng.choice(
        [
            "{n} // 2",
            "{n} - 1",
            "{n} + 1",
            "{n} * 2",
            "({n} + 1) // 2",
            "{n} % 3",
            "{t}.size({a})",
            "{t}.numel()",
            "len({t})",
            "torch.sym_max({n}, 2)",
            "torch.sym_min({n}, 3)",
            "{n} - {n} // 2",
            "-(-{n} // 2)",
            "{t}.shape.numel()",
            "{n} // 3 * 2",
        ]
    )
    return f"{s.new()} = " + how.format(n=size, t=t, a=a)


# Indexing


@kind(6)
def indexed(s: Scope) -> str:
    t = s.pick(lambda t: t.dim() > 0)
    return f"{s.new()} = {t}[{mixed_index(s, t)}]"


@kind(2)
def selected(s: Scope) -> str:
    t, name = s.pick(lambda t: t.dim() > 0), s.new()
    s.ends.add(name)
    how = s.rng.choice(
        ["{t}[{m}]", "{t}[{m}] * 2", "torch.masked_select({t}, {t} > 0)", "({t} > 0).nonzero()", "{t}[{m}].sum(0)"]
    )
    return f"{name} = " + how.format(t=t, m=mask_of(s, t))


@kind(3)
def gathered(s: Scope) -> str:
    t, rng = s.pick(lambda t: t.dim() > 0), s.rng
    a = s.axis(t)
    index = numbers(s, s.least(t, a), False)
    index = index if index[0] not in "[" else f"torch.tensor({index})"
    how = rng.choice(
        [
            "{t}.index_select({a}, {i}.flatten().abs())",
            "{t}.take({i}.abs())",
            "torch.take({t}, {i})",
            "{t}.gather({a}, torch.zeros_like({t}, dtype=torch.int64))",
            "torch.take_along_dim({t}, {t}.argsort({a}, stable=True), {a})",
        ]
    )
    return f"{s.new()} = " + how.format(t=t, a=a, i=index)


# Writes


@kind(10)
def written(s: Scope) -> str:
    t, rng = s.pick(), s.rng
    o = operand(s, t)
    how = rng.choice(
        [
            "{t}.add_({o})",
            "{t}.mul_({o})",
            "{t} += {o}",
            "{t} -= {o}",
            "{t} *= {o}",
            "{t} /= 2",
            "{t} //= 2",
            "{t}.copy_({o})",
            "{t}.fill_({c})",
            "{t}.zero_()",
            "{t}.masked_fill_({t} > 0, {c})",
            "{t}.clamp_(-1, 2)",
            "{t}.neg_()",
            "{t}.relu_()",
            "{t}.sub_({o}, alpha=2)",
            "{t}.masked_fill_({m}, {c})",
            "{t}.div_(2)",
            "{t}.remainder_(3)",
            "{t}.pow_(2)",
            "{t}.logical_not_()",
            "{t}.eq_({o})",
            "{t}.bitwise_or_(1)",
            "{t} |= {o}",
            "{t}.tril_()",
            "{t}.abs_()",
            "{t}.floor_divide_(2)",
            "{t}.copy_({u})",
            "{t}.add_({u})",
            "{t}.fill_({t}.sum())",
            "{t}.mul_({u})",
            "{t}.square_()",
            "{t}.fill_diagonal_({c})",
        ]
    )
    return how.format(t=t, o=o, c=scalar(s), m=mask_of(s, t), u=s.pick())


@kind(10)
def assigned(s: Scope) -> str:
    t, rng = s.pick(), s.rng
    choice = rng.random()
    if choice < 0.5:
        index = simple_index(s, t)
    elif choice < 0.75:
        index = mask_of(s, t)
        return f"{t}[{index}] {rng.choice(['=', '=', '+='])} {rng.choice([scalar(s), f'{t}.sum()'])}"
    else:
        index = mixed_index(s, t, unique=True)
    value = rng.choice([scalar(s), operand(s, t), f"{t}[{index}] * 2", f"{t}.sum()", f"torch.ones_like({t}[{index}])"])
    return f"{t}[{index}] {rng.choice(['=', '=', '=', '+=', '*='])} {value}"


@kind(6)
def scattered(s: Scope) -> str:
    t, rng = s.pick(lambda t: t.dim() > 0), s.rng
    a = s.axis(t, lambda size: size > 0)
    i = numbers(s, s.least(t, a), True)
    i = i if i[0] not in "[" else f"torch.tensor({i})"
    first = numbers(s, s.least(t, 0), True)
    first = first if first[0] not in "[" else f"torch.tensor({first})"
    how = rng.choice(
        [
            "{t}.index_put_(({f},), torch.tensor({c}).to({t}.dtype))",
            "{t}.index_add_({a}, {i}, {t}.index_select({a}, {i}))",
            "{t}.index_put_(({f},), {t}[{f}] * 2, accumulate=True)",
            "{t}.index_copy_({a}, {i}, {t}.index_select({a}, {i}) * 2)",
            "{t}.index_fill_({a}, {i}, {c})",
            "{t}.scatter_({a}, {t}.argsort({a}, stable=True), {c})",
            "{t}.scatter_({a}, {t}.argsort({a}, stable=True), {t} * 2)",
            "{t}.scatter_add_({a}, torch.zeros_like({t}, dtype=torch.int64), {t}.clone())",
            "{t}.scatter_reduce_({a}, torch.zeros_like({t}, dtype=torch.int64), {t} + 1, '{r}')",
            "{t}.put_({f}, torch.tensor({c}).to({t}.dtype).expand({f}.shape))",
            "{t}.index_put_(({t} > 0,), torch.tensor({c}).to({t}.dtype))",
            "{t}.masked_scatter_({t} > 0, torch.arange({t}.numel()).to({t}.dtype))",
            "torch.diagonal({t}, dim1=0, dim2=-1).add_(1)",
        ]
    )
    return how.format(t=t, a=a, i=i, f=first, c=scalar(s), r=rng.choice(["sum", "amax", "amin"]))


@kind(6)
def into_out(s: Scope) -> str:
    t, rng = s.pick(), s.rng
    o = operand(s, t)
    name = s.new()
    made = rng.choice(
        [
            "torch.empty(0)",
            "{t}.new_empty(0)",
            "torch.empty_like({t})",
            "torch.zeros(2, 3, 4)",
            "torch.empty(0, dtype={d})",
            "{t}.clone()",
            "torch.zeros({t}.numel() + 1).to({t}.dtype)[1:0]",
            "torch.zeros({t}.shape, dtype=torch.float64)",
            "{u}[..., None][..., 0]",
            "{u}",
        ]
    )
    how = rng.choice(
        [
            "torch.add({t}, {o}, out={v})",
            "torch.mul({t}, {o}, out={v})",
            "torch.neg({t}, out={v})",
            "torch.cat([{t}, {t}], 0, out={v})",
            "torch.sum({t}, 0, out={v})",
            "torch.cumsum({t}, 0, out={v})",
            "torch.eq({t}, {o}, out={v})",
            "torch.clamp({t}, 0, 1, out={v})",
            "torch.abs({t}, out={v})",
            "torch.stack([{t}, {t}], out={v})",
            "torch.gt({t}, 0, out={v})",
            "torch.div({t}, 2, out={v})",
            "torch.arange({t}.numel(), out={v})",
            "torch.sub({t}, {o}, out={v})",
            "torch.where({t} > 0, {t}, {t} * 2, out={v})",
        ]
    )
    parts = {"t": t, "o": o, "u": s.pick(), "d": dtype_of(s), "v": name}
    return f"{name} = {made.format(**parts)}; " + how.format(**parts)


@kind(2)
def metadata_changed(s: Scope) -> str:
    t, rng = s.pick(lambda t: t.dim() > 0), s.rng
    how = rng.choice(["unsqueeze_({a})", "squeeze_()", "transpose_(0, -1)", "swapaxes_(0, -1)", "squeeze_({a})"])
    return f"{t}." + how.format(a=s.axis(t))

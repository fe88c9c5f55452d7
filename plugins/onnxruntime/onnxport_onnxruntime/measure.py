"""Measures which of onnxruntime's operators files should have: ``python -m onnxport_onnxruntime.measure``.

Each case is a small module. It is exported twice, in the standard and with the one operator, at the opset that the
profile writes, and both files run in turns in one process with one thread; a number is the lower quartile of the
thread's CPU time in milliseconds, so that other work on the machine counts little. All cases are measured ``--passes``
times, one pass after the other: a machine is slower at times, and what one pass alone shows is no difference.
``choices.json``, which decides what files have, is written where ``--write`` is given; ``--tables`` takes what earlier
passes printed, so that passes of different hours count as one measurement.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import io
import json
import math
import re
import statistics
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import onnxport
import torch
from onnxport import Pass, Profile, Translation, hookimpl
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention, silu

from onnxport_onnxruntime import fusion, profiles

_CAUSAL = "causal"


class Chosen:
    """A plugin whose files have the forms that it is given, whatever was measured."""

    def __init__(self, profile: str, *forms: str) -> None:
        self._profile, self._forms = profile, forms

    @hookimpl
    def onnxport_profiles(self) -> list[Profile]:
        return [Profile(self._profile, domains={profiles.DOMAIN: 1})]

    @hookimpl
    def onnxport_translations(self) -> list[Translation]:
        from onnxport_onnxruntime import onnxport_translations

        return onnxport_translations()

    @hookimpl
    def onnxport_fx_passes(self) -> list[Pass]:
        return fusion.fx_passes(self._profile, self._forms)

    @hookimpl
    def onnxport_ir_passes(self) -> list[Pass]:
        return fusion.ir_passes(self._profile, self._forms)


class Attention(nn.Module):
    """Heads of one projection, with a cache where one is given."""

    def __init__(self, heads: int, kv_heads: int, width: int, mask: str = "") -> None:
        super().__init__()
        self.heads, self.kv_heads, self.width, self.mask = heads, kv_heads, width, mask

    def forward(self, x: Tensor, given: Any = None) -> Any:
        parts = x.split([count * self.width for count in (self.heads, self.kv_heads, self.kv_heads)], 2)
        q, k, v = (part.unflatten(2, [-1, self.width]).transpose(1, 2) for part in parts)
        mask = None
        if self.mask == _CAUSAL and given is not None:
            k, v = (torch.cat([past, new], 2) for past, new in zip(given, (k, v), strict=True))
        if self.mask == _CAUSAL:
            behind = torch.arange(q.shape[2])[:, None] + (k.shape[2] - q.shape[2])
            mask = (torch.arange(k.shape[2])[None] <= behind)[None, None]
        elif given is not None:
            mask = given[:, None, None, :]
        y = scaled_dot_product_attention(q, k, v, mask, enable_gqa=self.heads != self.kv_heads)
        y = y.transpose(1, 2).flatten(2)
        return (y, k, v) if self.mask == _CAUSAL and given is not None else y


class Norm(nn.Module):
    """The norm of a sum, which goes on to the next layer."""

    def __init__(self, width: int, *, is_rms: bool) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(width)) for _ in range(2))
        self.is_rms = is_rms

    def forward(self, x: Tensor, skip: Tensor) -> Any:
        x = x + skip
        if self.is_rms:
            return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)), x
        return layer_norm(x, [x.shape[-1]], self.weight, self.bias), x


class Alone(nn.Module):
    """A sum whose norm, or whose activation, is all that is made of it."""

    def __init__(self, width: int, *, is_norm: bool) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(width)) for _ in range(2))
        self.is_norm = is_norm

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return layer_norm(x + skip, [x.shape[-1]], self.weight, self.bias) if self.is_norm else gelu(x + self.bias)


class Activation(nn.Module):
    """A function of one tensor."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        if self.name == "gelu":
            return gelu(x, approximate="tanh")
        if self.name == "gelu by hand":
            return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))
        return silu(x) if self.name == "silu" else x * torch.sigmoid(1.702 * x)


class Router(nn.Module):
    """A mixture of experts as transformers writes it."""

    def __init__(self, width: int, inner: int, experts: int, count: int) -> None:
        super().__init__()
        from transformers import MixtralConfig
        from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

        config = MixtralConfig(
            hidden_size=width, intermediate_size=inner, num_local_experts=experts, num_experts_per_tok=count
        )
        config._experts_implementation = "grouped_mm"
        self.block = MixtralSparseMoeBlock(config)
        for parameter in self.block.parameters():
            nn.init.normal_(parameter, std=0.05)

    def forward(self, x: Tensor) -> Any:
        return self.block(x)


Case = tuple[str, str, nn.Module, tuple[Any, ...], Any]
_DYNAMIC = torch.export.Dim.DYNAMIC


def _attention(heads: int, kv_heads: int, width: int, new: int, past: int, mask: str = _CAUSAL) -> Iterator[Any]:
    yield Attention(heads, kv_heads, width, mask)
    x = torch.randn(1, new, (heads + 2 * kv_heads) * width)
    axes: Any = {0: _DYNAMIC, 1: _DYNAMIC}
    if mask == _CAUSAL:
        cache = tuple(torch.randn(1, kv_heads, past, width) for _ in range(2)) if past else None
        yield x, cache
        yield axes, ({0: _DYNAMIC, 2: _DYNAMIC},) * 2 if past else None
    else:
        kept = torch.ones(1, new, dtype=torch.bool) if mask else None
        yield x, kept
        yield axes, axes if mask else None


def _of_one_length(heads: int, width: int, length: int) -> Iterator[Any]:
    """What all calls have as many tokens of."""
    module, (x, _), _ = _attention(heads, heads, width, length, 0, "")
    yield module
    yield x, None
    yield {0: _DYNAMIC}, None


def cases() -> Iterator[Case]:
    """What is measured: form, name of the case, module, arguments, dynamic shapes."""
    yield fusion.GROUPED_CACHE, "step, past 512", *_attention(16, 4, 64, 1, 512)
    yield fusion.GROUPED_CACHE, "step, past 1536", *_attention(16, 4, 64, 1, 1536)
    yield fusion.GROUPED_CACHE, "step, 32 on 8 heads of 128, past 1024", *_attention(32, 8, 128, 1, 1024)
    yield fusion.GROUPED_CACHE, "step, 12 heads, past 512", *_attention(12, 12, 64, 1, 512)
    yield fusion.GROUPED_CACHE, "16 tokens, past 256", *_attention(16, 4, 64, 16, 256)
    yield fusion.GROUPED, "prompt of 128", *_attention(16, 4, 64, 128, 0)
    yield fusion.GROUPED, "prompt of 512", *_attention(16, 4, 64, 512, 0)
    yield fusion.MULTI_HEAD, "12 heads, 128", *_attention(12, 12, 64, 128, 0, "")
    yield fusion.MULTI_HEAD, "12 heads, 197", *_attention(12, 12, 64, 197, 0, "")
    yield fusion.MULTI_HEAD_LONG, "6 heads, 1500", *_of_one_length(6, 64, 1500)
    yield fusion.MULTI_HEAD_LONG, "12 heads, 577", *_of_one_length(12, 64, 577)
    yield fusion.MULTI_HEAD_MASK, "12 heads, 128", *_attention(12, 12, 64, 128, 0, "padding")
    yield fusion.MULTI_HEAD_MASK, "8 heads, 384", *_attention(8, 8, 64, 384, 0, "padding")
    yield fusion.MULTI_HEAD_CAUSAL, "12 heads, 128", *_attention(12, 12, 64, 128, 0)
    yield fusion.MULTI_HEAD_CAUSAL, "12 heads, 512", *_attention(12, 12, 64, 512, 0)
    yield fusion.MULTI_HEAD_CACHE, "step, 12 heads, past 512", *_attention(12, 12, 64, 1, 512)
    yield fusion.MULTI_HEAD_CACHE, "step, 12 heads of 20, past 512", *_attention(12, 12, 20, 1, 512)
    axes: Any = {0: _DYNAMIC, 1: _DYNAMIC}
    sizes = ((1, 1024), (128, 768), (256, 2048))
    for length, width in sizes:
        args = tuple(torch.randn(1, length, width) for _ in range(2))
        for name, is_rms in (("SkipLayerNormalization", False), ("SkipSimplifiedLayerNormalization", True)):
            yield name, f"{length}x{width}", Norm(width, is_rms=is_rms), args, (axes, axes)
        for name, is_norm in (("Sum before LayerNormalization", True), ("Sum before Gelu", False)):
            yield name, f"{length}x{width}", Alone(width, is_norm=is_norm), args, (axes, axes)
    for width, inner, experts, count in ((512, 1024, 8, 2), (512, 256, 32, 4)):
        for length in (1, 16, 128):
            case = f"{count} of {experts} experts, {length}x{width}"
            yield "MoE", case, Router(width, inner, experts, count), (torch.randn(1, length, width),), (axes,)
    kinds = {"FastGelu": "gelu", "FastGelu for what models write by hand": "gelu by hand"}
    for name, kind in (*kinds.items(), ("QuickGelu", "silu"), ("QuickGelu", "x * sigmoid(1.702 * x)")):
        for length, width in ((1, 2816), (128, 3072)):
            yield name, f"{kind}, {length}x{width}", Activation(kind), (torch.randn(1, length, width),), (axes,)


def _session(program: onnxport.ONNXProgram) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    buffer = io.BytesIO()
    program.save(buffer, external_data=False)
    return onnxruntime.InferenceSession(buffer.getvalue(), options, providers=["CPUExecutionProvider"])


def _times(sessions: list[Any], values: list[Any], runs: int) -> list[float]:
    feeds = [dict(zip((each.name for each in session.get_inputs()), values)) for session in sessions]
    times: list[list[float]] = [[] for _ in sessions]
    gc.collect()
    for run in range(runs + 3):
        for session, feed, kept in zip(sessions, feeds, times, strict=True):
            start = time.thread_time()
            session.run(None, feed)
            if run >= 3:
                kept.append((time.thread_time() - start) * 1e3)
    return [statistics.quantiles(each, n=4)[0] for each in times]


def _opset(profile: str) -> int | None:
    """The one that files of a profile have, which decides what the standard form is."""
    return next((each.opset for each in profiles.profiles() if each.name == profile), None)


def sessions_of(case: Case, profile: str) -> tuple[list[Any], list[Any]]:
    """Sessions of the standard form and of the operator, and the inputs of both.

    Raises:
        ValueError: the operator isn't in the file: what finds it doesn't find it.
    """
    form, name, module, args, shapes = case
    operator = form.partition(" ")[0].strip(",")
    options: dict[str, Any] = {"verbose": False, "opset_version": _opset(profile)}
    standard = onnxport.export(module.eval(), args, dynamic_shapes=shapes, **options)
    special = onnxport.export(standard.exported_program, plugins=[Chosen(profile, form)], runtime=profile, **options)
    if not any(node.op_type == operator for node in special.model.graph):
        raise ValueError(f"{operator} isn't in the file of the case {name!r}: correct what finds it.")
    values = [each.numpy() for each in torch.utils._pytree.tree_leaves(args) if each is not None]
    return [_session(program) for program in (standard, special)], values


Passes = dict[str, dict[str, list[list[float]]]]
"""By form and case, for each pass the milliseconds of the standard form and of the operator."""
_ROW = "{:38} {:40} {:9.4f} {:9.4f}  {:.2f}"
_READ = re.compile(r"^(?P<start>\S.*\S) +(?P<standard>\d+\.\d+) +(?P<own>\d+\.\d+) +\d+\.\d+$")


def measure(only: str, profile: str, passes: int, runs: int) -> Passes:
    """Measure the cases of all forms whose names contain ``only``, printing a row for each as it is measured."""
    subjects = [(case[0], case[1], *sessions_of(case, profile)) for case in cases() if only in case[0]]
    found: Passes = {}
    for _ in range(passes):
        for form, name, sessions, values in subjects:
            times = [round(each, 4) for each in _times(sessions, values, runs)]
            found.setdefault(form, {}).setdefault(name, []).append(times)
            print(_ROW.format(form, name, *times, times[1] / times[0]), flush=True)
    return found


def read_tables(paths: list[Path]) -> Passes:
    """What passes printed, as :func:`measure` gives it.

    Raises:
        ValueError: a table is of another version of this file: a row is of no case, or a case isn't in each table
            equally often.
    """
    names = {re.sub(" +", " ", f"{case[0]} {case[1]}"): case[:2] for case in cases()}
    found: Passes = {form: {} for form, _ in names.values()}
    for path in paths:
        rows = filter(None, map(_READ.match, path.read_text("utf-8").splitlines()))
        for row in rows:
            start = re.sub(" +", " ", row["start"])
            if start not in names:
                raise ValueError(f"{path}: no case is called {start!r}: measure again.")
            form, name = names[start]
            found[form].setdefault(name, []).append([float(row["standard"]), float(row["own"])])
    if len({len(passes) for measured in found.values() for passes in measured.values()}) > 1:
        raise ValueError(f"{', '.join(map(str, paths))}: some cases were measured more often: measure again.")
    return {form: measured for form, measured in found.items() if measured}


def keep(found: Passes, profile: str, date: str, conditions: str, path: Path) -> None:
    """Put measurements into the file that decides, in the place of earlier ones of the same forms and version."""
    data = json.loads(path.read_text("utf-8"))
    version = data.setdefault(profile, {}).setdefault(profiles.installed_version(), {})
    for form, measured in found.items():
        version[form] = {"date": date, "conditions": conditions, "cases": measured}
    text = json.dumps(data, indent=1, sort_keys=True)
    path.write_text(re.sub(r"\[\s+(\d[\d.]*),\s+(\d[\d.]*)\s+\]", r"[\1, \2]", text) + "\n", "utf-8")


def _print_decisions(found: Passes) -> None:
    for form, measured in found.items():
        each = profiles.Measurement("", "", measured)
        spread = f"{min(each.ratios):.2f} to {max(each.ratios):.2f}"
        print(f"{form:38} {each.ratio:.2f} ({spread} by pass): {'used' if each.is_faster else 'not used'}")


def main() -> None:
    """Measure all cases, print them, and keep them if wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default=profiles.CPU)
    parser.add_argument("--only", default="", help="a part of the operators' names")
    parser.add_argument("--passes", type=int, default=3, help="how often all cases are measured")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--tables", nargs="+", type=Path, help="files with what passes printed; measures nothing")
    parser.add_argument("--write", action="store_true", help="keep what was measured in choices.json")
    parser.add_argument("--date", default=datetime.date.today().isoformat(), help="of the passes")
    parser.add_argument("--conditions", default="", help="how the passes were made, such as 'no other work'")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tables:
        found = read_tables(options.tables)
    else:
        found = measure(options.only, options.profile, options.passes, options.runs)
    _print_decisions(found)
    if options.write:
        passes = len(next(iter(next(iter(found.values())).values())))
        conditions = ", ".join(filter(None, [f"{passes} passes on one thread", options.conditions]))
        path = Path(str(resources.files(__package__).joinpath("choices.json")))
        keep(found, options.profile, options.date, conditions, path)


if __name__ == "__main__":
    main()

"""Every model type of the installed transformers: built small, run in eager torch, exported, compared at two shapes.

``python tests/plugins/transformers_pack/transformers_sweep.py [--only llama,bert] [--part 1/4] [--again refused]``

Each type is tried in a process of its own, with a limit of time. Results are lines of JSON in ``--results``; types that
are there already are skipped, so that a sweep goes on where it was stopped. ``--page`` writes the table from them.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / ".sweep" / "transformers.jsonl"
PAGE = ROOT / "docs" / "transformers-models.md"
LARGEST = 120_000_000
"""Weights of a model that can't be made smaller."""

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "depth")
_LAYERS += ("num_encoder_layers", "num_decoder_layers", "e_layers", "d_layers", "layers", "transformer_layers")
_WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "width", "projection_dim", "embedding_size")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "encoder_attention_heads", "decoder_attention_heads", "num_heads")
_SMALL: dict[str, int] = {
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_WIDTHS, 32),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "attention_head_size"), 8),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "mlp_dim", "ffn_hidden_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    "mamba_n_heads": 4,
    "mamba_d_state": 16,
    "state_size": 8,
    "time_step_rank": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "vocab_size": 128,
}
_FEW = {**dict.fromkeys(_LAYERS, 2), "vocab_size": 128}


def _overrides(config: Any, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The settings of a configuration that sizes are for, those of its parts included."""
    found: dict[str, Any] = {}
    names = {*config.to_dict(), *getattr(config, "attribute_map", {})}
    for name, size in sizes.items():
        value = getattr(config, name, None) if name in names else None
        if type(value) is int and value > size:
            found[name] = size
    for name, part in vars(config).items():
        if hasattr(part, "model_type") and hasattr(part, "to_dict"):
            found[name] = {**part.to_diff_dict(), **_overrides(part, sizes)}
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        value = getattr(config, name, None)
        if type(value) is int and value >= 128 and "vocab_size" in found:
            found[name] = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id").index(name)
    types = getattr(config, "layer_types", None)
    if isinstance(types, list) and len(types) > 2 and not hasattr(type(config), "layer_types"):
        found["layer_types"] = list(dict.fromkeys(types))[:2] * 2
        found["layer_types"] = found["layer_types"][:2]
    return found


def _configs(config_class: Any) -> Iterator[Any]:
    """Configurations of a type, the smallest first; those that can't be made are left out."""
    for sizes in (_SMALL, _FEW, {}):
        try:
            config = config_class(**_overrides(config_class(), sizes)) if sizes else config_class()
        except Exception:  # each class has its own demands on its numbers
            continue
        yield config


def tasks_of_type(model_type: str) -> list[Any]:
    """The tasks for which transformers has a class of the type."""
    from onnxport_transformers import tasks
    from transformers.models.auto import modeling_auto

    return [task for task in tasks.TASKS.values() if model_type in getattr(modeling_auto, task.mapping, {})]


def _built(model_type: str) -> tuple[Any, dict[str, Any]]:
    """The graphs of a model that runs in eager torch, for the first task that has one."""
    import torch
    from onnxport_transformers import package, tasks
    from transformers import AutoConfig

    errors: list[str] = []
    for task in tasks_of_type(model_type):
        factory = tasks.factory_of(task)
        for config in _configs(type(AutoConfig.for_model(model_type))):
            try:
                with torch.device("meta"):
                    count = sum(p.numel() for p in factory.from_config(config).parameters())
                if count > LARGEST:
                    errors.append(f"{count / 1e6:.0f} million weights")
                    continue
                torch.manual_seed(0)
                model = factory.from_config(config).eval()
                graphs = package._graphs(model, task, False)
                with torch.no_grad():
                    for graph in graphs.values():
                        graph.model(**_copied(graph.kwargs))
                return task, graphs
            except Exception as error:  # whatever the code of a model raises
                errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
    raise NotBuiltError(errors[0] if errors else "no configuration can be made")


class NotBuiltError(Exception):
    """No small model runs in eager torch."""


def _copied(value: Any) -> Any:
    import torch
    from torch.utils._pytree import tree_map

    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, value)


def examine(model_type: str) -> dict[str, Any]:
    """What comes of a type: one line of the table."""
    import onnxport

    result: dict[str, Any] = {"type": model_type, "task": "", "state": "no task", "why": "", "seconds": 0.0}
    if not tasks_of_type(model_type):
        return result
    start = time.perf_counter()
    try:
        task, graphs = _built(model_type)
        result["task"] = task.name
    except NotBuiltError as error:
        return {**result, "state": "not built", "why": str(error)}
    nodes = {}
    try:
        for part, graph in graphs.items():
            program = onnxport.export(graph.model, **graph.options(), verbose=False)
            nodes[part] = len(program.model.graph)
            result.update(state="captured", nodes=nodes, dynamic=_free(program))
            checked = onnxport.verify(program)
            result["shapes"] = sum(not each.skipped for each in checked.comparisons)
            if not checked.passed:
                return {**result, "state": "differs", "why": checked.failures()[0]}
    except Exception as error:
        place = next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if "/models/" in f.filename), None)
        where = f" ({Path(place.filename).name}:{place.lineno})" if place else ""
        first = str(error).splitlines()
        why = f"{type(error).__name__}: {first[0] if first else ''}{where}"
        return {**result, "state": "refused", "why": why, "told": str(error)[:1500]}
    return {**result, "state": "equal", "seconds": round(time.perf_counter() - start, 1)}


def _free(program: Any) -> list[str]:
    dims = {str(dim) for value in program.model.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
    return sorted(dims)


def in_a_process(examination: Callable[[], dict[str, Any]], seconds: int) -> dict[str, Any]:
    """What a child of this process finds, or that it took too long, or died."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a parent's limit of time is none of the child's
        signal.alarm(seconds)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                found = examination()
        with os.fdopen(write, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if text:
        return json.loads(text)  # type: ignore[no-any-return]
    is_late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
    return {"state": "too slow" if is_late else "died", "why": f"{seconds} s" if is_late else f"status {status}"}


def known(results: Path) -> dict[str, dict[str, Any]]:
    """Results by type; the last of each counts."""
    if not results.is_file():
        return {}
    lines = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
    return {line["type"]: line for line in lines}


def page(found: Mapping[str, Mapping[str, Any]], total: int, version: str) -> str:
    """The table, and its totals."""
    states = Counter(line["state"] for line in found.values())
    built = sum(states.values()) - states["no task"] - states["not built"]
    share = f"{100 * states['equal'] / built:.1f} %" if built else "none"
    lines = [
        "# Model types of transformers",
        "",
        "Written by `make transformers`; don't edit it. Each type is built small with random weights, run in eager",
        "torch, exported with what its task leaves free, and compared on onnxruntime at two shapes or more.",
        "",
        f"transformers {version}: {len(found)} of {total} types were tried. {built} of them build small and run in",
        f"eager torch; {states['equal']} of these are equal ({share}). "
        + "; ".join(f"{state}: {count}" for state, count in sorted(states.items()) if state != "equal")
        + ".",
        "",
        "| type | task | result | free axes | seconds | nodes | what stops it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, line in sorted(found.items()):
        nodes = ", ".join(f"{part} {count}" for part, count in line.get("nodes", {}).items())
        why = " ".join(str(line.get("why", "")).split()).replace("|", "\\|").replace("<", "&lt;")[:160]
        free = ", ".join(line.get("dynamic", ()))
        seconds = line["seconds"] or ""
        lines.append(f"| {name} | {line['task']} | {line['state']} | {free} | {seconds} | {nodes} | {why} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="types, with commas")
    parser.add_argument("--part", default="1/1", help="such as 2/4: every fourth type, from the second on")
    parser.add_argument("--seconds", type=int, default=240, help="for one type")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds for all")
    parser.add_argument("--again", default="", help="states whose types are tried again, with commas")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=None, help="write the table there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import onnxport
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    torch.set_num_threads(1)
    onnxport.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),), verify=True, verbose=False)  # imports
    every = sorted(CONFIG_MAPPING_NAMES)
    number, parts = (int(part) for part in options.part.split("/"))
    chosen = options.only.split(",") if options.only else every[number - 1 :: parts]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    again, start = options.again.split(","), time.monotonic()
    for name in chosen:
        line = known(options.results).get(name)
        if (line is not None and line["state"] not in again) or time.monotonic() - start > options.limit:
            continue
        blank = {"type": name, "task": "", "seconds": 0.0}
        line = {**blank, **in_a_process(lambda name=name: examine(name), options.seconds)}  # type: ignore[misc]
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{name}: {line['state']} {line.get('why', '')}"[:200], flush=True)
    found = known(options.results)
    if options.page is not None:
        options.page.write_text(page(found, len(every), transformers.__version__), "utf-8")
    print(dict(Counter(line["state"] for line in found.values())))


if __name__ == "__main__":
    sys.exit(main())

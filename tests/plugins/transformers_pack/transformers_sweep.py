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
import re
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / ".sweep" / "transformers.jsonl"
PAGE = ROOT / "docs" / "transformers-models.md"
MEMORY = 10 << 30
"""Bytes of addresses that a type may have: what asks for more fails, and takes nothing from others."""


def examine(model_type: str) -> dict[str, Any]:
    """What comes of a type: one line of the table."""
    import onnxport
    import onnxport_transformers
    from onnxport_transformers import small

    result: dict[str, Any] = {"type": model_type, "task": "", "state": "not built", "why": "", "seconds": 0.0}
    start = time.perf_counter()
    try:
        built = small.small_model(model_type)
    except small.NotBuiltError as error:
        return {**result, "why": str(error)}
    result["task"] = built.task
    nodes = {}
    try:
        for part, graph in built.graphs.items():
            program = onnxport.export(graph.model, **graph.options(), plugins=[onnxport_transformers], verbose=False)
            nodes[part] = len(program.model.graph)
            result.update(state="captured", nodes=nodes, dynamic=_free(program))
            others = [((), kwargs) for kwargs in graph.others]
            checked = onnxport.verify(program, graph.model, (), graph.kwargs, other_inputs=others)
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
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
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
    built = sum(states.values()) - states["not built"]
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
        why = re.sub(r"\S*/site-packages/", "", " ".join(str(line.get("why", "")).split()))  # no folders of a machine
        why = why.replace("|", "\\|").replace("<", "&lt;")[:160]
        free = ", ".join(line.get("dynamic", ()))
        seconds = line["seconds"] or ""
        lines.append(f"| {name} | {line['task']} | {line['state']} | {free} | {seconds} | {nodes} | {why} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="types, with commas")
    parser.add_argument("--part", default="1/1", help="such as 2/4: every fourth type, from the second on")
    parser.add_argument("--seconds", type=int, default=600, help="for one type")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds for all")
    parser.add_argument("--again", default="", help="states whose types are tried again, with commas")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=None, help="write the table there")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import onnxport
    import torch
    import transformers
    from onnxport_transformers import small

    torch.set_num_threads(1)
    onnxport.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),), verify=True, verbose=False)  # imports
    for name in ("llama", "clip"):
        small.small_model(name)  # imports that most types need, once
    every = small.model_types()
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

"""torch's operator database as a zoo: each operator at each dtype is a case, ``operators:add:float32``.

``grid.py`` says what is measured, and starts :func:`main`. ``zoo.toml`` is the whole database for ``onnxport zoo run``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins" / "zoo"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import grid
import known
from cases import DTYPES, has_dtype, name_of, operators
from grid import SAMPLES, SECONDS_A_CASE, Key, Outcome, Plan
from onnxport_zoo import Resolver
from onnxport_zoo.cases import Case
from onnxport_zoo.engines import local
from onnxport_zoo.results import Results, Status
from onnxport_zoo.running import run_cases

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parents[1] / "build" / "conformance" / "run"
MODES = ("static", "dynamic")
_STATUSES = {"mismatch": Status.WRONG, "error": Status.FAILED, "refused": Status.REFUSED}  # the worst first


# The cases -----------------------------------------------------------------------------------------------------------


def _names() -> Iterator[str]:
    for entry in operators():
        yield from (f"{name_of(entry)}:{dtype}" for dtype in DTYPES if has_dtype(entry, dtype))


def _perform(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one operator at one dtype: ``outcomes`` are lists of operator, dtype, mode, sample and outcome."""
    grid.prepare()
    full, _, dtype = name.rpartition(":")
    options = settings["options"]
    plan = Plan((dtype,), tuple(options.get("modes", MODES)), options.get("samples", SAMPLES), settings["opset"])
    entries = [entry for entry in operators() if name_of(entry) == full]
    found = [pair for entry in entries for pair in grid.run_operator(entry, plan)]
    failing = [outcome for _, outcome in found if outcome.kind in _STATUSES]
    worst = min(failing, key=lambda outcome: list(_STATUSES).index(outcome.kind), default=None)
    return {
        "status": Status.PASSED if worst is None else _STATUSES[worst.kind],
        "message": "" if worst is None else worst.detail[:2000],
        "outcomes": [[*key, asdict(outcome)] for key, outcome in found],
    }


resolver = Resolver(
    _names,
    distributions=("torch", "numpy", "scipy"),
    perform=_perform,
    preload=("torch.testing._internal.common_methods_invocations", "grid"),
)


def zoo_of(names: Iterable[str], plan: Plan) -> list[Case]:
    """The cases of some operators, ``add`` or ``linalg.norm.subgradients_at_zero``, by a plan."""
    label = "" if plan.modes == MODES else plan.modes[0]
    options = {"modes": list(plan.modes), "samples": plan.samples}
    wanted = set(names)
    seconds = float(plan.seconds * len(plan.modes) * plan.samples or 3600) + SECONDS_A_CASE
    return [
        Case(
            f"operators:{name}",
            str(HERE),
            plan.opset,
            options=options,
            label=label,
            depends=("*.py",),
            latency=False,
            seconds=seconds,
            place="operator_zoo.py:resolver",
        )
        for name in dict.fromkeys(_names())
        if name.rpartition(":")[0] in wanted and name.rpartition(":")[2] in plan.dtypes
    ]


def outcomes(records: Iterable[Mapping[str, Any]]) -> dict[Key, Outcome]:
    """What records have measured, the newest last; a process without a result is an error of its operator and dtype."""
    found: dict[Key, Outcome] = {}
    for record in sorted(records, key=lambda record: float(record["start"])):
        if "outcomes" in record:
            found |= {
                (op, dtype, mode, sample): Outcome(**said) for op, dtype, mode, sample, said in record["outcomes"]
            }
        else:
            op, _, dtype = record["settings"]["model"].partition(":")[2].rpartition(":")
            mode = record["settings"]["options"]["modes"][0]
            found[op, dtype, mode, -1] = Outcome("error", f"{record['status']}: {record['message']}")
    return found


def _is_open(case: Case, measured: Mapping[Key, Outcome]) -> bool:
    """Whether something of a case failed, or was not measured."""
    op, _, dtype = case.model.partition(":")[2].rpartition(":")
    own = {key: outcome for key, outcome in measured.items() if key[:2] == (op, dtype)}
    kinds = {outcome.kind for outcome in own.values()}
    return (
        not own or not kinds <= {"pass", "capture", "frozen"} or not set(case.options["modes"]) <= {k[2] for k in own}
    )


# Command line --------------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the grid as asked; 1 when what failed isn't what ``known.csv`` lists."""
    parser = argparse.ArgumentParser(description=grid.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", default="", help="comma-separated names; a trailing * is a prefix; all when left out")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--samples", type=int, default=SAMPLES, help="of each operator and dtype; 0 for all")
    parser.add_argument("--dynamic", action="store_true", help="dynamic dimensions only")
    parser.add_argument("--static", action="store_true", help="fixed dimensions only")
    parser.add_argument("--opset", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on: keep what nothing has changed for")
    parser.add_argument("--failed", action="store_true", help="run again what failed, and what was never run")
    parser.add_argument(
        "--update-known", action="store_true", help="rewrite known.csv: drop what passes, add what fails"
    )
    parser.add_argument("--verbose", action="store_true", help="print the whole detail of failures")
    options = parser.parse_args(arguments)
    wanted = [name for name in options.ops.split(",") if name]
    modes = ("static",) if options.static or (wanted and not options.dynamic) else MODES
    modes = ("dynamic",) if options.dynamic else modes
    plan = Plan(tuple(options.dtypes.split(",")), modes, options.samples, options.opset)
    cases = zoo_of([name_of(entry) for entry in operators() if _is_wanted(entry, wanted)], plan)
    standard = options.samples == SAMPLES and options.opset is None
    with contextlib.ExitStack() as stack:
        folder = FOLDER if standard else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        before = outcomes(Results(folder).records.values()) if options.failed else {}
        chosen = [case for case in cases if not options.failed or _is_open(case, before)]
        again = () if options.resume else tuple(Status)
        _run(chosen, folder, options, again)
        everything = outcomes(Results(folder).records.values())
    names = {tuple(case.model.partition(":")[2].rpartition(":")[::2]) for case in cases}
    results = {key: each for key, each in everything.items() if key[:2] in names and key[2] in modes}
    _summarize(results)
    if not standard:
        return 0
    if options.update_known:
        known.update(results)
    problems = known.differences(results)
    print("\n".join(problems))
    if not wanted and not options.dynamic and not options.static:
        import coverage_page

        coverage_page.write(everything)
    return 1 if problems else 0


def _run(cases: Sequence[Case], folder: Path, options: argparse.Namespace, again: Sequence[str]) -> None:
    paths = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "plugins" / "zoo"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # where the server of processes finds the grid

    def told(record: dict[str, Any], number: int, count: int) -> None:
        for (op, dtype, mode, sample), outcome in outcomes([record]).items():
            if outcome.counts and outcome.kind != "pass":
                detail = outcome.detail if options.verbose else " ".join(outcome.detail.split())[:260]
                print(f"{outcome.kind:9} {op} {dtype} {mode} #{sample}: {detail}", flush=True)

    run_cases(cases, folder, local(options.jobs), zoo=str(HERE), jobs=options.jobs, again=again, told=told)


def _is_wanted(entry: Any, wanted: list[str]) -> bool:
    full = name_of(entry)
    return not wanted or any(n in (full, entry.name) or (n.endswith("*") and full.startswith(n[:-1])) for n in wanted)


def _summarize(results: Mapping[Key, Outcome]) -> None:
    totals: dict[tuple[str, str], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for (_, dtype, mode, _), outcome in results.items():
        totals[dtype, mode][outcome.kind] += 1
        totals[dtype, mode]["counted"] += outcome.counts
    for (dtype, mode), counts in sorted(totals.items(), key=lambda item: (DTYPES.index(item[0][0]), item[0][1])):
        kinds = {kind: n for kind, n in sorted(counts.items()) if kind != "counted"}
        print(f"{dtype:9} {mode:8} {counts['pass']}/{counts['counted']} pass  {kinds}")

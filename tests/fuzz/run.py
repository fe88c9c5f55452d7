"""Fuzzes the exporter: random programs against eager torch, at two sizes, in a plain onnxruntime session.

    python tests/fuzz/run.py --seed 0 --count 10000 --jobs 2
    python tests/fuzz/run.py --seed 0 --start 4711 --count 1     # one of them again

Prints the shortest form of every program that is wrong, and counts by cause. Exits with 1 if any is wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzz.programs import Verdict, batches, reproducer, shrunk, verdicts

BATCH = 16  # programs of one export: what an export costs besides its nodes is shared


def options_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first program")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--refusals", action="store_true", help="print refused programs too")
    parser.add_argument("--no-shrink", action="store_true")
    return parser.parse_args(argv)


def run(seed: int, start: int, count: int, shrink: bool = True, refusals: bool = False) -> Counter[str]:
    """Counts by result; those that are refused or wrong by cause too."""
    counts: Counter[str] = Counter()
    for programs, setting in batches(seed, start, count, BATCH):
        for verdict in verdicts(programs, setting):
            counts[verdict.result] += 1
            if verdict.result != "run":
                counts[f"{verdict.result}: {cause_of(verdict)}"] += 1
            if verdict.result == "wrong":
                print(reproducer(shrunk(verdict) if shrink else verdict), flush=True)
            elif refusals and verdict.result != "run":
                print(reproducer(verdict), flush=True)
        if programs[-1].index // BATCH % 8 == 7:
            print(f"# {time.strftime('%X')} up to {programs[-1].index}: {totals(counts)}", file=sys.stderr, flush=True)
    return counts


def cause_of(verdict: Verdict) -> str:
    """The start of a cause, without what differs from program to program."""
    return re.sub(r"\d+", "#", verdict.cause)[:90]


def totals(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in ("run", "outside", "refused", "wrong"))


def main(argv: list[str] | None = None) -> int:
    options = options_of(argv)
    if options.jobs > 1:
        counts = in_processes(options)
    else:
        counts = run(options.seed, options.start, options.count, not options.no_shrink, options.refusals)
        if argv is None:
            print("COUNTS " + json.dumps(counts))
    for cause, number in counts.most_common():
        if ":" in cause:
            print(f"{number:6d} {cause}")
    print(f"{sum(counts[name] for name in ('run', 'outside', 'refused', 'wrong'))} programs: {totals(counts)}")
    return 1 if counts["wrong"] else 0


def in_processes(options: argparse.Namespace) -> Counter[str]:
    """A range of programs for each process; one that dies counts as wrong."""
    share = -(-options.count // options.jobs)
    share += -share % BATCH
    common = [sys.executable, "-W", "ignore", __file__, "--seed", str(options.seed)]
    common += [flag for flag, given in (("--refusals", options.refusals), ("--no-shrink", options.no_shrink)) if given]
    children = []
    for start in range(options.start, options.start + options.count, share):
        count = min(share, options.start + options.count - start)
        command = [*common, "--start", str(start), "--count", str(count)]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    counts: Counter[str] = Counter()
    for child in children:
        output = child.communicate()[0]
        found = re.search(r"^COUNTS (.*)$", output, re.M)
        print(output[: found.start()] if found else output)
        counts.update(
            json.loads(found[1]) if found else {"wrong": 1, f"wrong: a process ended with {child.returncode}": 1}
        )
    return counts


if __name__ == "__main__":
    sys.exit(main())

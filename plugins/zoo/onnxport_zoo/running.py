"""A run: what is known is kept, the rest goes to an engine, and each result is written when it is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxport_zoo.cases import Case, read_zoo
from onnxport_zoo.content import digest_of, key_of, versions
from onnxport_zoo.engines import Engine, memory_of_a_job
from onnxport_zoo.isolation import Task
from onnxport_zoo.results import RUN, Results, Status, text_of, write_whole

_MARGIN = 1.25  # of what a case took before: what it is thought to take


@dataclass
class Summary:
    """What became of a run.

    Attributes:
        records: of all cases, in the order of the zoo.
        kept: how many of them were in the folder already.
        cached: how many came from the cache.
        performed: how many were performed now.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    kept: int = 0
    cached: int = 0
    performed: int = 0

    def counts(self) -> dict[str, int]:
        """How many cases have each status."""
        statuses = [record["status"] for record in self.records]
        return {str(status): statuses.count(status) for status in Status if status in statuses}


class Cache:
    """Results by key, verifications by key, and the memory that cases took.

    Args:
        folder: None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.verified = None if folder is None else folder / "verified"

    def get(self, key: str) -> dict[str, Any] | None:
        """The record of that key, if there is one."""
        if self._folder is None or not (path := self._folder / "results" / key).exists():
            return None
        return text_of(path)

    def put(self, record: dict[str, Any]) -> None:
        """Keep a record, and the memory that its case took."""
        if self._folder is not None and not record.get("machine_failed"):
            write_whole(self._folder / "results" / record["key"], record)
            if record["status"] == Status.PASSED:
                write_whole(self._peak(record["case"]), {"peak": record["peak"]})

    def estimate(self, case: Case) -> int:
        """The bytes that a case will take, by what it took before; 0 where nothing is known."""
        path = None if self._folder is None else self._peak(case.name)
        return int(text_of(path)["peak"] * _MARGIN) if path is not None and path.exists() else 0

    def _peak(self, name: str) -> Path:
        return Path(str(self._folder)) / "peaks" / digest_of(name)[:32]


def run_zoo(
    zoo: Path,
    out: Path,
    engine: Engine,
    *,
    jobs: int = 1,
    cache: Path | None = None,
    again: Collection[str] = (),
    told: Callable[[dict[str, Any], int, int], None] = lambda record, number, count: None,
) -> Summary:
    """Run the cases of a zoo's file that have no result yet.

    Args:
        zoo: the file with the cases.
        out: the folder of the run; what it has is kept.
        engine: what performs tasks.
        jobs: how many of them share this machine's memory.
        cache: the folder of results of other runs.
        again: statuses whose cases are performed again.
        told: called with each new record, its number and their count.

    Raises:
        UsageError: the file isn't one, or the folder has something else.
    """
    options: dict[str, Any] = {"jobs": jobs, "cache": cache, "again": again, "told": told}
    return run_cases(read_zoo(zoo), out, engine, zoo=str(zoo), **options)


def run_cases(
    cases: Sequence[Case],
    out: Path,
    engine: Engine,
    *,
    zoo: str = "",
    jobs: int = 1,
    cache: Path | None = None,
    again: Collection[str] = (),
    told: Callable[[dict[str, Any], int, int], None] = lambda record, number, count: None,
) -> Summary:
    """Run cases that have no result yet; :func:`run_zoo` has the arguments.

    Raises:
        UsageError: the folder has something else than a run.
    """
    results, known, summary = Results(out), Cache(cache), Summary()
    run = {"zoo": zoo, "cases": [case.name for case in cases], "versions": versions()}
    write_whole(out / RUN, run)
    memory, tasks = memory_of_a_job(jobs), []
    for case in cases:
        key = key_of(case)
        if _usable(results.records.get(case.name), case, key, again):
            summary.kept += 1
        elif _usable(record := known.get(key), case, key, again):
            summary.cached += 1
            results.append({**record, "case": case.name, "cached": True})  # type: ignore[dict-item]
        else:
            tasks.append(Task(case, key, known.verified, case.memory or memory, known.estimate(case)))
    for record in engine(tasks) if tasks else ():
        if record["status"] == Status.STOPPED:
            continue
        summary.performed += 1
        results.append(record)
        known.put(record)
        told(record, summary.performed, len(tasks))
    summary.records = [results.records[case.name] for case in cases if case.name in results.records]
    return summary


def _usable(record: dict[str, Any] | None, case: Case, key: str, again: Collection[str]) -> bool:
    """Whether a record is the result of a case as it is now."""
    if record is None or record["key"] != key or record["status"] in again or record.get("machine_failed"):
        return False
    limited = record["status"] in (Status.TIMEOUT, Status.MEMORY)
    return not limited or record["limits"] == {"seconds": case.seconds, "memory": case.memory}


def default_jobs() -> int:
    """One for every two processors."""
    return max((os.cpu_count() or 1) // 2, 1)

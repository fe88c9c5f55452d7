"""Engines: what runs tasks, and gives their records as they end. All call the same function, ``isolated``."""

from __future__ import annotations

import concurrent.futures
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onnxport.kit import UsageError

from onnxport_zoo.isolation import Task, isolated, warm

Engine = Callable[[Sequence[Task]], Iterator[dict[str, Any]]]
_SHARE = 0.8  # of the memory that is free


def available_bytes() -> int:
    """The memory that is free, or all where the system doesn't tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_of_a_job(jobs: int) -> int:
    """What each of so many processes may take."""
    return int(available_bytes() * _SHARE / jobs)


def processors(jobs: int) -> list[tuple[int, ...]]:
    """The processors of each job, so that none disturbs the latency of another; empty where there are too few."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    each = len(usable) // jobs
    return [tuple(usable[job * each : (job + 1) * each]) for job in range(jobs)]


def local(jobs: int) -> Engine:
    """Processes of this machine, so many at a time."""

    def run(tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        stopped = threading.Event()
        free: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()
        for each in processors(jobs):
            free.put(each)

        def perform(task: Task) -> dict[str, Any]:
            cpus = free.get()
            try:
                return isolated(task, cpus, stopped.is_set)
            finally:
                free.put(cpus)

        warm(tasks)
        pool = concurrent.futures.ThreadPoolExecutor(jobs)
        try:
            futures = [pool.submit(perform, task) for task in tasks]
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)

    return run


def engine_named(name: str, jobs: int, address: str | None) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: there is none, or its library is missing.
    """
    if name == "local":
        if address is not None:
            raise UsageError("--address is for --engine ray only: leave it out")
        return local(jobs)
    if name == "ray":
        from onnxport_zoo.on_ray import on_ray

        return on_ray(address)
    raise UsageError(f"--engine {name}: there are local and ray")

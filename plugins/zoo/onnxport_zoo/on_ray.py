"""The engine on Ray: a task a case, wherever the cluster has a processor and memory for it.

The task starts the process of the case, as the local engine does, so that a crash, a hang and a lack of memory are
results. What Ray itself tries again is a task whose worker or machine was lost.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnxport.kit import UsageError

from onnxport_zoo.engines import Engine
from onnxport_zoo.isolation import Task, isolated
from onnxport_zoo.results import Status

RETRIES = 3
_MARGIN = 1.1  # of an estimate


def on_ray(address: str | None) -> Engine:
    """The processors of a Ray cluster.

    Args:
        address: of a cluster, or ``"auto"`` for the one of this machine; None starts one here.

    Raises:
        UsageError: Ray isn't installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'onnxport-zoo[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            raise UsageError(f"There is no Ray cluster at {address}: {error}") from error
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_perform)

    def run(tasks: Sequence[Task]) -> Iterator[dict[str, Any]]:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        largest = max(node["memory"] for node in nodes)
        share = min(node["memory"] / node["CPU"] for node in nodes)
        waiting: dict[Any, tuple[Task, int]] = {}

        def start(task: Task, limit: int) -> None:
            asked = min(task.estimate or limit, limit, largest)
            asks = not task.case.memory and limit < largest
            task = dataclasses.replace(task, memory=limit, asks=asks)
            waiting[remote.options(memory=int(asked)).remote(task)] = task, limit

        for task in tasks:
            start(task, int(task.case.memory or max(share, min(task.estimate, largest))))
        try:
            while waiting:
                for reference in ray.wait(list(waiting), num_returns=1)[0]:
                    task, limit = waiting.pop(reference)
                    record = _record(ray, reference, task)
                    more = more_memory(record, limit, int(largest))
                    if more and not task.case.memory:
                        start(dataclasses.replace(task, estimate=more), more)
                    else:
                        yield record
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    return run


def more_memory(record: Mapping[str, Any], limit: int, largest: int) -> int:
    """What to ask for in place of a limit that a case went beyond: its estimate, or twice as much; 0 to ask no more."""
    if record["status"] != Status.MEMORY or limit >= largest:
        return 0
    return min(max(int(record.get("estimate", 0) * _MARGIN), 2 * limit), largest)


def _record(ray: Any, reference: Any, task: Task) -> dict[str, Any]:
    try:
        record: dict[str, Any] = ray.get(reference)
        return record
    except ray.exceptions.RayError as error:  # more often than it is retried: the machine is to blame
        memory = isinstance(error, ray.exceptions.OutOfMemoryError)
        facts: dict[str, Any] = {"case": task.case.name, "key": task.key, "settings": task.case.settings()}
        facts |= {"stage": "", "stages": {}, "peak": 0, "attempts": RETRIES + 1, "seconds": 0.0, "machine_failed": True}
        status = Status.MEMORY if memory else Status.CRASHED
        return {**facts, "status": status, "message": f"{type(error).__name__}: {error}"[:2000]}


def _perform(task: Task) -> dict[str, Any]:
    """What a worker does."""
    import ray

    record = isolated(task)
    node = ray.get_runtime_context().get_node_id()
    return {**record, "node": f"{socket.gethostname()} {node[:8]}"}

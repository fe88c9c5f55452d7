"""A fresh process for each case, with limits: a crash, a hang and a lack of memory are results.

Processes are forked from a server that has imported what an export needs, and nothing else. Systems that can't fork
start an interpreter for each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import multiprocessing
import os
import resource
import selectors
import shutil
import signal
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from onnxport_zoo.cases import Case
from onnxport_zoo.processes import kills_for_memory, resident_bytes, seconds_of_waiting
from onnxport_zoo.results import Status

_STARTING = threading.Lock()  # multiprocessing reads the exit codes of all processes when it starts one
ATTEMPTS = 3  # for what the machine is to blame for
_PAUSE = 0.05  # seconds between looks at the memory of a process
_OUTPUT = 2000  # characters of what a process printed that a result keeps


@dataclasses.dataclass(frozen=True)
class Task:
    """A case as engines pass it on.

    Attributes:
        case: what to export.
        key: what its result is stored under.
        verified: the folder of known verifications, or None.
        memory: how many bytes the process may have.
        estimate: how many it will take, as far as is known.
        asks: whether it is to end when the program tells that it will take more, so that it is started with more.
    """

    case: Case
    key: str
    verified: Path | None
    memory: int
    estimate: int = 0
    asks: bool = False


def isolated(task: Task, cpus: Sequence[int] = (), stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Perform a task in a process of its own, and give its record.

    A process that was killed from outside, not for memory, is started again.

    Args:
        task: what to do.
        cpus: the processors that the process may use; all where it is empty. It has a thread for each.
        stop: asked now and then whether to give up.
    """
    start = time.time()
    attempts, result = 1, _attempt(task, cpus, stop)
    while result.pop("machine", False) and attempts < ATTEMPTS:
        attempts, result = attempts + 1, _attempt(task, cpus, stop)
    facts: dict[str, Any] = {"case": task.case.name, "key": task.key, "settings": task.case.settings()}
    facts |= {"limits": {"seconds": task.case.seconds, "memory": task.case.memory}, "attempts": attempts}
    return {**facts, **result, "start": start, "seconds": round(time.time() - start, 3)}


def warm(tasks: Iterable[Task]) -> None:
    """Start the server of processes, so that its imports are no part of the first case's time."""
    resolvers = {case.place or case.model.partition(":")[0]: case.resolver for case in (task.case for task in tasks)}
    preload = dict.fromkeys(name for each in resolvers.values() if each is not None for name in each.preload)
    process = fresh(preload).Process(target=_nothing)
    _start(process)
    process.join()


def _nothing() -> None:
    pass


def _start(process: Any) -> None:
    """Start a process without the main module of this one.

    multiprocessing imports that into each process, and it may be pytest or a worker of Ray: no case needs it.
    """
    with _STARTING:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            process.start()
        finally:
            sys.modules["__main__"] = main


def _attempt(task: Task, cpus: Sequence[int], stop: Callable[[], bool]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="onnxport-zoo-"))
    try:
        return _watched(task, folder, cpus, stop)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _watched(task: Task, folder: Path, cpus: Sequence[int], stop: Callable[[], bool]) -> dict[str, Any]:
    context = fresh(task.case.resolver.preload if task.case.resolver is not None else ())
    receiver, sender = context.Pipe(duplex=False)
    kills = kills_for_memory()
    process = context.Process(target=_child, args=(sender, task, str(folder), tuple(cpus)))
    _start(process)
    sender.close()
    state: dict[str, Any] = {"stage": "", "peak": 0, "estimate": 0}
    verdict = _verdict(task, process, receiver, state, stop)
    receiver.close()
    if "result" in state:
        threading.Thread(target=_ended, args=(process, 5.0)).start()  # the next case needn't wait for its end
        result: dict[str, Any] = state["result"]
        return {**result, "peak": max(result.get("peak", 0), state["peak"])}
    ended = _ended(process, patience=5.0 if verdict is None else 0.0)
    result = {"stage": state["stage"], "stages": {}, "peak": state["peak"], "estimate": state["estimate"]}
    if verdict is None:
        verdict = _death(ended, kills_for_memory() > kills)
        result["machine"] = verdict[0] is Status.CRASHED and ended == -signal.SIGKILL
    return {**result, "status": verdict[0], "message": verdict[1], "output": _tail(folder / "output.txt")}


def _verdict(
    task: Task, process: Any, receiver: Connection, state: dict[str, Any], stop: Callable[[], bool]
) -> tuple[Status, str] | None:
    """Listen to a process until it has told its result, or has ended; or why it must end, where it goes too far."""
    end = time.monotonic() + task.case.seconds
    with selectors.DefaultSelector() as selector:
        heard = selector.register(receiver, selectors.EVENT_READ)
        over = selector.register(process.sentinel, selectors.EVENT_READ)
        while "result" not in state:
            ready = [key for key, _ in selector.select(_PAUSE)]
            if heard in ready and not _heard(receiver, state):
                break
            if over in ready and not receiver.poll():
                break
            state["peak"] = max(state["peak"], resident_bytes(process.pid))
            if task.asks and state["estimate"] > task.memory:
                expected = _size(state["estimate"])
                return Status.MEMORY, f"It will take about {expected} of memory; it may have {_size(task.memory)}."
            now = time.monotonic()
            if state["peak"] > task.memory:
                return Status.MEMORY, f"It took {_size(state['peak'])} of memory; it may have {_size(task.memory)}."
            if now > end and now > end + seconds_of_waiting(process.pid):
                return Status.TIMEOUT, f"It took longer than the {task.case.seconds:g} s that it has."
            if stop():
                return Status.STOPPED, "The run was stopped."
    return None


def _heard(receiver: Connection, state: dict[str, Any]) -> bool:
    """Whether the process said something; it says its stages, and then its result."""
    try:
        name, value = receiver.recv()
    except (EOFError, OSError):
        return False
    state[name] = value
    return True


def _ended(process: Any, patience: float) -> int:
    """End a process and all that it started; give its exit code."""
    ended = bool(wait([process.sentinel], timeout=patience))
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # it may not lead its group yet
        wait([process.sentinel])
    with _STARTING:
        process.join()
        return int(process.exitcode)


def _death(code: int, for_memory: bool) -> tuple[Status, str]:
    if code == -signal.SIGKILL and for_memory:
        return Status.MEMORY, "The system ended it, since memory was short."
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return Status.CRASHED, f"It was ended by {name}."
    return Status.CRASHED, f"It ended with exit code {code}, without a result."


def _tail(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-_OUTPUT:].strip() if path.exists() else ""


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


# The server and the process -----------------------------------------------------------------------------------------


def fresh(preload: Iterable[str] = ()) -> Any:
    """The way in which processes are made; the server that makes them imports modules when it starts."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [*preload, "onnxport_zoo.preload"]
    )  # before the server starts; later calls change nothing
    return context


def _child(sender: Connection, task: Task, folder: str, cpus: tuple[int, ...]) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # so that what it starts can be ended with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    output = os.open(os.path.join(folder, "output.txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    faulthandler.enable()
    import torch

    from onnxport_zoo.task import perform

    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)
    torch.set_num_threads(max(len(cpus), 1))
    files = Path(folder) / "files"
    files.mkdir()
    start = time.process_time()
    result = perform(
        task.case,
        files,
        task.verified,
        lambda stage: sender.send(("stage", stage)),
        lambda count: sender.send(("estimate", count)),
    )
    result["cpu"] = round(time.process_time() - start, 6)
    factor = 1 if sys.platform == "darwin" else 1024
    result["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor
    sender.send(("result", result))
    sys.stdout.flush()
    os._exit(0)  # threads of a model are no matter any more


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(os.getpgid(0), signal.SIGKILL)

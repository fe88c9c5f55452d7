"""How long nodes take on onnxruntime: a profile of its own, measured or read, and the nodes of the file behind it."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxport import FileError, ONNXProgram
from onnxport.kit import ort, path_argument, plain, wrong

from onnxport_workbench.json_results import JsonResult

if TYPE_CHECKING:
    from onnxport_workbench.view.contents import Contents

_ENDING = "_kernel_time"
_NCHWC = "_nchwc"
_FUSED = "fused "
_MOST_RUNS = 10
_MOST_SECONDS = 2.0


@dataclass(frozen=True)
class KernelTime:
    """A node as onnxruntime ran it, which may be several of the file in one.

    Attributes:
        name: its name in onnxruntime.
        operator: its operator there, such as ``FusedMatMul``.
        provider: the execution provider that ran it.
        seconds: the median of its time in a run of the model.
        node: the node of the file that it comes from; empty where the file has none of that name.
        torch_operator: what this node was translated from.
        module: the module that it is in.
        source: ``file:line: code`` of the model.
    """

    name: str
    operator: str
    provider: str
    seconds: float
    node: str = ""
    torch_operator: str = ""
    module: str = ""
    source: str = ""


@dataclass
class Latencies(JsonResult):
    """The times of all nodes.

    Attributes:
        runs: how many runs of the model were measured.
        kernels: the nodes as onnxruntime ran them, the slowest first.
    """

    runs: int = 0
    kernels: list[KernelTime] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The time of all nodes in a run."""
        return sum(kernel.seconds for kernel in self.kernels)

    @property
    def by_operator(self) -> list[tuple[str, int, float]]:
        """Operators of onnxruntime with their number of nodes and seconds, the slowest first."""
        seconds, counts = Counter[str](), Counter[str]()
        for kernel in self.kernels:
            seconds[kernel.operator] += kernel.seconds  # type: ignore[assignment]
            counts[kernel.operator] += 1
        return [(operator, counts[operator], time) for operator, time in seconds.most_common()]

    @property
    def by_name(self) -> dict[str, float]:
        """Seconds by name in onnxruntime."""
        return {kernel.name: kernel.seconds for kernel in self.kernels}

    def as_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        operators = [{"operator": name, "nodes": nodes, "seconds": time} for name, nodes, time in self.by_operator]
        return {
            "runs": self.runs,
            "seconds": self.seconds,
            "operators": operators,
            "nodes": [asdict(kernel) for kernel in self.kernels],
        }


def measured(program: ONNXProgram, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Latencies:
    """Run a program on onnxruntime with its profiler on, after a run that isn't counted.

    Raises:
        Exception: whatever onnxruntime raises where it can't run the model.
    """
    options = program.session_options or ort.SessionOptions()
    before = options.enable_profiling, options.profile_file_prefix, options.log_severity_level
    with tempfile.TemporaryDirectory(prefix="onnxport-") as folder:
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        options.log_severity_level = 3
        try:
            program.initialize_inference_session(session_options=options)
            program(*args, **kwargs)
            since = time.perf_counter()
            for _ in range(_MOST_RUNS):
                program(*args, **kwargs)
                if time.perf_counter() - since > _MOST_SECONDS:
                    break
            session = program.inference_session
            path = "" if session is None else session.end_profiling()
            return read(path, skip=1)
        finally:
            program.release()
            options.enable_profiling, options.profile_file_prefix, options.log_severity_level = before


def read(path: str, skip: int = 0) -> Latencies:
    """A profile that onnxruntime wrote (``SessionOptions.enable_profiling``).

    Args:
        path: of the JSON file.
        skip: how many runs at the start aren't counted.

    Raises:
        FileError: the file can't be read, or has no times of nodes.
    """
    try:
        events = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(
            f"{path!r} can't be read as a profile: {error}. Give the .json file that onnxruntime wrote.", path=path
        ) from error
    runs = _Runs(skip)
    for event in events if isinstance(events, list) else ():
        if isinstance(event, dict):
            runs.add(event)
    seconds = runs.seconds()
    if not seconds:
        raise FileError(f"{path!r} has no times of nodes: write it with SessionOptions.enable_profiling.", path=path)
    kernels = [KernelTime(name, *runs.kinds[name], time) for name, time in seconds.items()]
    return Latencies(runs.count, sorted(kernels, key=lambda kernel: -kernel.seconds))


class _Runs:
    """The events of a profile. Events of nodes come before that of their run."""

    def __init__(self, skip: int) -> None:
        self._skip = skip
        self.count = 0
        self.seen: dict[str, list[float]] = {}
        self.kinds: dict[str, tuple[str, str]] = {}
        self._now: dict[str, list[float]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        name = event.get("name", "")
        if name == "model_run":
            self._end()
        elif event.get("cat") == "Node" and isinstance(name, str) and name.endswith(_ENDING):
            name, args = plain(name[: -len(_ENDING)]), event.get("args")
            told = args if isinstance(args, dict) else {}
            self._now.setdefault(name, []).append(float(event.get("dur", 0)) / 1e6)
            self.kinds[name] = plain(told.get("op_name", "")), plain(told.get("provider", ""))

    def _end(self) -> None:
        """A run has ended: a node of a loop has several events in it."""
        if self._skip:
            self._skip -= 1
        else:
            self.count += 1
            for name, times in self._now.items():
                self.seen.setdefault(name, []).append(sum(times))
        self._now = {}

    def seconds(self) -> dict[str, float]:
        """The median of the runs by name; of a file that has no runs, of the events."""
        return {name: statistics.median(times) for name, times in (self.seen or self._now).items()}


def seconds_by_name(given: Any) -> dict[str, float] | None:
    """Seconds by name of node, of a mapping or of a profile that onnxruntime wrote.

    Raises:
        InputError: it is neither.
        FileError: the file can't be read, or is no profile.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        if not all(isinstance(k, str) and isinstance(v, (int, float)) for k, v in given.items()):
            raise wrong("latencies", given, "seconds by name of node")
        return {name: float(seconds) for name, seconds in given.items()}
    path = path_argument("latencies", given, "seconds by name of node, or the path of a profile of onnxruntime")
    return read(path).by_name


class Nodes:
    """The nodes of a file by the names that onnxruntime gives to what it runs in their place."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._by_name = {node.name: i for i, node in reversed([*enumerate(contents.nodes)])}
        self._by_value = {
            contents.values[value].name: i for i, node in enumerate(contents.nodes) for value in node.outputs
        }

    def index(self, name: str) -> int | None:
        """The node that one of onnxruntime is made of; None where its name doesn't tell.

        A fusion adds to the name of a node (``node_linear/MatMulAddFusion``, ``fused node_linear``); a convolution in
        blocks of channels is called by its result (``conv2d_nchwc``).
        """
        for candidate in (name, name.partition("/")[0], name.removeprefix(_FUSED)):
            if candidate in self._by_name:
                return self._by_name[candidate]
        return self._by_value.get(name.removesuffix(_NCHWC)) if name.endswith(_NCHWC) else None

    def seconds(self, by_name: Mapping[str, float]) -> tuple[dict[int, float], float]:
        """Seconds by index of node; and those of what the file has no node for."""
        found: dict[int, float] = {}
        rest = 0.0
        for name, seconds in by_name.items():
            index = self.index(name)
            if index is None:
                rest += seconds
            else:
                found[index] = found.get(index, 0.0) + seconds
        return found, rest

    def told(self, kernel: KernelTime) -> KernelTime:
        """The kernel with the node of the file that it comes from."""
        index = self.index(kernel.name)
        if index is None:
            return kernel
        node = self._contents.nodes[index]
        last = node.trace[-1] if node.trace else None
        source = f"{last.file}:{last.line}: {last.code}" if last else ""
        module = self._contents.module_of(node.group)[1]
        own = kernel.name, kernel.operator, kernel.provider, kernel.seconds
        return KernelTime(*own, node.name, node.torch_operator, module, source)


__all__ = ["KernelTime", "Latencies", "Nodes", "measured", "read", "seconds_by_name"]

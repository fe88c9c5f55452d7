"""Two runs: what is worse, what is better, what is new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxport_zoo.results import Status, read_run

#: What is worse, each with what it means.
WORSE = {
    "wrong": "the file computes something else than the model, and didn't before",
    "failing": "the case passed, and fails now",
    "missing": "the case had a result, and has none now: the run isn't complete",
    "slower": "a call takes longer, by more than a tenth and by more than calls differ",
    "larger": "the graph has more nodes",
    "bytes": "the file has other bytes, though model, settings and versions are the same",
}
BETTER = {"fixed": "the case passes now", "faster": "a call takes less time", "smaller": "the graph has fewer nodes"}
OTHER = {
    "changed": "the case has another status that is no better and no worse",
    "added": "a new case",
    "removed": "the zoo has it no longer",
}
KINDS = {**WORSE, **BETTER, **OTHER}

_TENTH, _DEVIATIONS, _CLOCK = 0.1, 4.0, 20e-6


@dataclass(frozen=True)
class Change:
    """What differs in one case: a key of ``KINDS``, and the two values."""

    case: str
    kind: str
    before: str = ""
    after: str = ""

    def as_dict(self) -> dict[str, str]:
        """As JSON has it."""
        return asdict(self)


def changes(before: Path, after: Path) -> list[Change]:
    """What differs between two runs, the worst first.

    Raises:
        UsageError: a folder has no run.
    """
    old_run, old = read_run(before)
    new_run, new = read_run(after)
    found: list[Change] = []
    for name in dict.fromkeys([*old_run["cases"], *new_run["cases"]]):
        if name in old and name in new:
            found += _changes(name, old[name], new[name])
        elif name in old:
            kind = "missing" if name in new_run["cases"] else "removed"
            found.append(Change(name, kind, old[name]["status"]))
        elif name in new:
            found.append(Change(name, "added", after=new[name]["status"]))
    order = list(KINDS)
    return sorted(found, key=lambda change: order.index(change.kind))


def _changes(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    was, now = old["status"], new["status"]
    if was != now:
        if {was, now} <= {Status.PASSED, Status.ROUNDING}:
            kind = "changed"
        elif now in (Status.PASSED, Status.ROUNDING):
            kind = "fixed"
        elif now == Status.WRONG:
            kind = "wrong"
        else:
            kind = "failing" if was in (Status.PASSED, Status.ROUNDING) else "changed"
        message = str(new.get("message", "")).partition("\n")[0][:200]
        yield Change(name, kind, was, f"{now} ({new.get('stage', '')}): {message}" if message else now)
    if old["key"] == new["key"] and old.get("digest", "") != new.get("digest", "") and was == now:
        yield Change(name, "bytes", str(old.get("digest", ""))[:12], str(new.get("digest", ""))[:12])
    if "nodes" in old and "nodes" in new and old["nodes"] != new["nodes"]:
        yield Change(name, "larger" if new["nodes"] > old["nodes"] else "smaller", str(old["nodes"]), str(new["nodes"]))
    if (slower := _slower(old.get("latency"), new.get("latency"))) is not None:
        yield Change(name, "slower" if slower else "faster", _time(old), _time(new))


def _slower(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool | None:
    """Whether calls take longer now; None where they take as long, as far as that can be told."""
    if not old or not new or old.get("threads") != new.get("threads"):
        return None
    first, second = old["onnxruntime"], new["onnxruntime"]
    difference = second["median"] - first["median"]
    noise = max(_TENTH * first["median"], _DEVIATIONS * (first["spread"] + second["spread"]), _CLOCK)
    return difference > 0 if abs(difference) > noise else None


def _time(record: Mapping[str, Any]) -> str:
    return f"{record['latency']['onnxruntime']['median'] * 1000:.3f} ms"

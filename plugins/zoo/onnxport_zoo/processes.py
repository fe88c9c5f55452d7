"""What Linux tells of processes: their memory, and how long they waited. Other systems tell nothing, which is 0."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path


def resident_bytes(pid: int | None) -> int:
    """The memory of a process; 0 where it has ended, or the system doesn't tell."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def seconds_of_waiting(pid: int | None) -> float:
    """How long a process could have run and had no processor: of its threads, the one that waited the longest."""
    longest = 0
    with contextlib.suppress(OSError):  # it has ended, or there is no such folder
        for thread in os.listdir(f"/proc/{pid}/task"):
            with (
                contextlib.suppress(OSError, IndexError, ValueError),
                open(f"/proc/{pid}/task/{thread}/schedstat") as file,
            ):
                longest = max(longest, int(file.read().split()[1]))
    return longest / 1e9


def kills_for_memory() -> int:
    """How often the system has ended a process since memory was short."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

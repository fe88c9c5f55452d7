"""All benchmarks, one after the other: ``make bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPTS = (
    "startup.py",
    "memory.py",
    "export_time.py",
    "depth.py",
    "functions.py",
    "check_7b.py",
    "report_cost.py",
    "single_ops.py",
)


def main() -> int:
    status = 0
    for script in _SCRIPTS:
        path = Path(__file__).with_name(script)
        print(f"== {script}", flush=True)
        status |= subprocess.run([sys.executable, str(path)], check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())

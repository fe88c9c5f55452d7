"""Samples of the suites on the newest and on the oldest libraries, each set in a virtual environment of its own.

::

    make versions                                        # both sets; under an hour, and 6 GB in .versions/
    python tools/versions.py oldest                      # one of them
    python tools/versions.py newest --samples cases      # one sample
    python tools/versions.py newest --keep               # leave the environment, for what has to be looked into
    python tools/versions.py oldest --python .venv/bin/python   # an environment that exists

The newest set is what pip finds; the oldest is what pyproject.toml allows: its lower bounds. The table goes to
docs/supported-versions.md, in which a set that wasn't run keeps its row. An environment is removed when its set is
through.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import time
import venv
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".versions"
PAGE = ROOT / "docs" / "supported-versions.md"
PACKAGES = ("torch", "torchvision", "transformers", "timm", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
SETS = ("newest", "oldest")
LIMIT = 20 * 60  # seconds, for each sample

#: What runs on each set: folders and files, and which tests of them: every n-th, so that each file has its part.
SAMPLES = {
    "names": (1, ["tests/test_private_names.py", "tests/test_policy.py"]),
    "core": (4, ["tests/core", "tests/stages"]),
    "operators": (12, ["tests/operators"]),
    "models": (4, ["tests/models"]),
    "API": (4, ["tests/api"]),
    "cases": (6, ["tests/cases"]),
}


@dataclass(frozen=True)
class Result:
    """What a sample gave: counts of tests, or no counts where it didn't end."""

    passed: int
    failed: list[str]
    skipped: int
    seconds: float
    ended: bool = True

    def __str__(self) -> str:
        if not self.ended:
            return f"not ended in {self.seconds:.0f} s"
        return f"{self.passed} passed" + (f", {len(self.failed)} failed" if self.failed else "")


def lower_bounds() -> list[str]:
    """``torch==2.11.*`` for each ``"torch>=2.11"`` of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    bounds = dict(re.findall(r'"([a-z0-9-]+)>=([0-9.]+)"', text))
    return [f"{name}=={bounds[name]}.*" for name in PACKAGES if name in bounds]


def environment(name: str) -> Path:
    """The Python of a set's environment, installed afresh where it is missing or was left half-made."""
    folder = ENVIRONMENTS / name
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists():
        venv.create(folder, clear=True, with_pip=True)
        asked = ["--upgrade", *PACKAGES] if name == "newest" else lower_bounds()
        pip = [python, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--editable", f"{ROOT}[test]", *asked], check=True)
        for pack in sorted(ROOT.glob("plugins/*/pyproject.toml")):
            subprocess.run([*pip, "--no-deps", "--no-build-isolation", pack.parent], check=True)
            shutil.rmtree(pack.parent / "build", ignore_errors=True)  # a pack is built in place
        done.touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """The installed version of each package."""
    code = f"from importlib.metadata import version; print(*map(version, {PACKAGES}))"
    output = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return dict(zip(PACKAGES, output.split(), strict=True))


def run(python: Path, name: str, sample: str, jobs: int) -> Result:
    """One sample in one environment."""
    ENVIRONMENTS.mkdir(exist_ok=True)
    report = ENVIRONMENTS / f"{name}-{sample}.xml"
    report.unlink(missing_ok=True)
    every, paths = SAMPLES[sample]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", f"--every={every}"]
    command += ["-n", str(jobs)] if jobs > 1 else []
    start = time.monotonic()
    try:
        subprocess.run([*command, *paths], cwd=ROOT, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return Result(0, [], 0, LIMIT, ended=False)
    seconds = time.monotonic() - start
    if not report.exists():
        return Result(0, [], 0, seconds, ended=False)
    tests = list(ElementTree.parse(report).iter("testcase"))
    failed = [
        f"{test.get('classname')}::{test.get('name')}"
        for test in tests
        if test.find("failure") is not None or test.find("error") is not None
    ]
    skipped = sum(test.find("skipped") is not None for test in tests)
    return Result(len(tests) - len(failed) - skipped, failed, skipped, seconds)


def row(name: str, installed: dict[str, str], results: dict[str, Result]) -> str:
    cells = [name, *(installed[package].partition("+")[0] for package in PACKAGES)]
    cells += [str(results[sample]) if sample in results else "not run" for sample in SAMPLES]
    cells.append(datetime.date.today().isoformat())
    return f"| {' | '.join(cells)} |"


def write(rows: dict[str, str]) -> None:
    """Put the rows into the page's table."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for name, text in rows.items():
        lines = [text if line.startswith(f"| {name} |") else line for line in lines]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="newest|oldest", help="default: both")
    parser.add_argument("--samples", nargs="+", choices=SAMPLES, default=list(SAMPLES))
    parser.add_argument("--python", type=Path, help="the Python of an environment that has the libraries of one set")
    parser.add_argument("--jobs", type=int, default=2, help="processes that run tests at a time")
    parser.add_argument("--keep", action="store_true", help="keep the environments")
    options = parser.parse_args()
    chosen = options.sets or list(SETS)
    if not set(chosen) <= set(SETS) or (options.python and len(chosen) != 1):
        parser.error("name newest or oldest, and only one of them with --python")
    rows, failed = {}, False
    for name in chosen:
        python = options.python.absolute() if options.python else environment(name)
        results = {sample: run(python, name, sample, options.jobs) for sample in options.samples}
        failed |= any(result.failed or not result.ended for result in results.values())
        rows[name] = row(name, versions(python), results)
        if not (options.python or options.keep):
            shutil.rmtree(ENVIRONMENTS / name)
        for sample, result in results.items():
            print(f"{name} {sample}: {result} in {result.seconds:.0f} s", *result.failed, sep="\n    ")
    print(*rows.values(), sep="\n")
    write(rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What all tests share: one thread, the same numbers each time, and the markers."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy
import onnxruntime
import pytest
import torch
import torch.utils._pytree as pytree


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", type=int, default=1, metavar="N", help="run only every N-th test, as `make versions`")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.addinivalue_line("markers", "conformance: runs cases of torch's operator database")
    config.addinivalue_line("markers", "grid: a longer grid, run by `make grid` and left out otherwise")
    torch.set_num_threads(1)


@pytest.hookimpl(trylast=True)  # what `-m` leaves out isn't counted
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Private names of libraries come first: what a release changed is told before the tests that it breaks."""
    items.sort(key=lambda item: item.path.name != "test_private_names.py")
    if (every := config.getoption("--every")) > 1:
        config.hook.pytest_deselected(items=[item for number, item in enumerate(items) if number % every])
        items[:] = items[::every]


@pytest.fixture(autouse=True)
def _same_numbers() -> Iterator[None]:
    """Each test draws the same random numbers, whatever ran before it."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    yield


@pytest.fixture
def unregistered_caches() -> Iterator[None]:
    """No cache of transformers is a container of pytree's yet, whatever other tests have loaded."""
    base = pytest.importorskip("transformers").cache_utils.Cache
    tables: list[dict[Any, Any]] = [pytree.SUPPORTED_NODES, pytree.SUPPORTED_SERIALIZED_TYPES]
    before = [{cls: table[cls] for cls in table if isinstance(cls, type) and issubclass(cls, base)} for table in tables]
    for table, entries in zip(tables, before):
        for cls in entries:
            del table[cls]
    yield
    for table, entries in zip(tables, before):
        table.update(entries)


@functools.cache
def _runtime_is_older() -> bool:
    """Than the one whose kernels were measured; 1.23 is the newest that Python 3.10 can have."""
    table = resources.files("onnxport_workbench").joinpath("kernels.json").read_text("utf-8")
    measured = json.loads(table)["versions"]["CPUExecutionProvider"]
    return _numbers(onnxruntime.__version__) < _numbers(measured)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


def _lack(error: BaseException) -> str:
    """What an onnxruntime older than the measured one says that it can't do; empty for every other failure."""
    if type(error).__module__.startswith("onnxruntime.") and _runtime_is_older():
        return f"onnxruntime {onnxruntime.__version__}: {str(error)[-160:]}"
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A test that fails for what an older onnxruntime lacks is skipped, with its words."""
    report = yield
    if report.failed and call.excinfo is not None and (lack := _lack(call.excinfo.value)):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, lack)
    return report

"""What all tests share: one thread, the same numbers each time, and the markers."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy
import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than a few seconds")
    config.addinivalue_line("markers", "conformance: runs cases of torch's operator database")
    config.addinivalue_line("markers", "grid: a longer grid, run by `make grid` and left out otherwise")
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers() -> Iterator[None]:
    """Each test draws the same random numbers, whatever ran before it."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    yield

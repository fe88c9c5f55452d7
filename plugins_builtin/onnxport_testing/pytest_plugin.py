"""The plugin for pytest: the fixture ``node_counts_golden``, and the option ``--update-goldens``.

pytest loads it for whoever has onnxport installed, so it imports torch only when a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("onnxport")
    group.addoption("--update-goldens", action="store_true", help="write node counts of onnxport exports as goldens")


@pytest.fixture
def node_counts_golden(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    """Compares a program's node counts with the golden of the test: ``goldens/<file>.json`` beside it, by its name.

    ``pytest --update-goldens`` writes it.
    """
    from onnxport_testing.goldens import expect_node_counts

    path = request.path.parent / "goldens" / f"{request.path.stem}.json"
    update = True if request.config.getoption("--update-goldens") else None

    def expect(program: Any) -> None:
        __tracebackhide__ = True
        expect_node_counts(program, path, request.node.name, update=update)

    return expect

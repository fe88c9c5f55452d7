"""docs/promises.md says what the tests say."""

from __future__ import annotations

from pathlib import Path

from promises import MODULES, PAGE, page, promises_of


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make promises`"


def test_every_test_of_a_promise_is_on_the_page() -> None:
    modules = {path.stem.removeprefix("test_promises_") for path in Path(__file__).parent.glob("test_promises_*.py")}
    assert modules - {"page"} == set(MODULES)
    for name in MODULES:
        assert list(promises_of(name))

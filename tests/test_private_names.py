"""Private names of libraries: all that are used are in the table, and are what they were.

These run before all other tests: a release that changes one is told by the name, not by an export that went wrong.
"""

from __future__ import annotations

from private_names import ABSENT, HOME, signature, table, used


def test_each_private_name_is_in_the_table() -> None:
    new = {name: files for name, files in used().items() if name not in table()}
    assert not new, "run python tests/private_names.py, after a look at whether a public name would do"
    unused = sorted(table().keys() - used().keys())
    assert not unused, "run python tests/private_names.py: nothing uses these any longer"


def test_the_core_has_private_names_in_one_file() -> None:
    others = {name: files for name, files in used().items() if any(f.startswith("core/") and f != HOME for f in files)}
    assert not others, f"use it in {HOME} alone, behind a name of its own"


def test_private_names_are_what_they_were() -> None:
    accepted = table()
    changed = {
        name: f"{now}; was {' or '.join(accepted[name])}; used by {', '.join(files)}"
        for name, files in used().items()
        if name in accepted and (now := signature(name)) not in accepted[name]
    }
    assert not changed, "change the code that uses these, then run python tests/private_names.py"


def test_what_is_absent_today_is_accepted_with_a_signature_of_another_release() -> None:
    assert not [name for name, signatures in table().items() if signatures == [ABSENT]]


def test_names_that_are_gone_are_told() -> None:
    assert signature("torch._C._no_such_function") == ABSENT
    assert signature("torch.nn.Module._no_such_attribute") == ABSENT
    assert signature("torch._no_such_module.function") == ABSENT
    assert signature("torch.export._trace._export") != signature("torch.export._trace._override_builtin_ops")

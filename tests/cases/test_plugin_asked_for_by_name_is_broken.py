"""What was asked for can't be left out in silence: a plugin by name, from the environment, or as an object."""

from __future__ import annotations

import types
from typing import Any

import onnxport
import pytest
import torch
from onnxport import PluginError, hookimpl
from onnxport.host import discovery
from pack_support import X, said

RELU = torch.nn.ReLU()
GOOD = "from onnxport import hookimpl\n@hookimpl\ndef onnxport_translations(): return []\n"
MISSPELT = "from onnxport import hookimpl\n@hookimpl\ndef onnxport_translation(): return []\n"
UNMARKED = "def onnxport_translations(): return []\n"
WRONG_ARGUMENT = "from onnxport import hookimpl\n@hookimpl\ndef onnxport_translations(nonsense): return []\n"


@pytest.mark.parametrize(
    ("source", "cause", "words"),
    [
        ("import a_module_that_is_not_there\n", ModuleNotFoundError, "a_module_that_is_not_there"),
        ("raise ZeroDivisionError('at import')\n", ZeroDivisionError, "at import"),
        ("def broken(:\n", SyntaxError, "SyntaxError"),
        ("raise SystemExit(3)\n", SystemExit, "SystemExit: 3"),
        (MISSPELT, ValueError, "no hook is named 'onnxport_translation'"),
        (UNMARKED, ValueError, "onnxport_translations isn't marked as a hook"),
        (WRONG_ARGUMENT, Exception, "nonsense"),
        ("x = 1\n", ValueError, "it has no hooks"),
    ],
    ids=["missing", "raises", "syntax", "exit", "misspelt", "unmarked", "argument", "empty"],
)
@pytest.mark.parametrize("way", ["plugins", "environment", "beside another"])
def test_by_name(
    packs: Any,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    cause: type,
    words: str,
    way: str,
) -> None:
    packs("cases_broken", source)
    packs("cases_good", GOOD)
    options: dict[str, Any] = {"plugins": ["cases_broken"]}
    if way == "environment":
        monkeypatch.setenv(discovery.ENVIRONMENT_VARIABLE, "cases_broken")
        discovery.forget()
        options = {}
    elif way == "beside another":
        options = {"plugins": ["cases_good", "cases_broken"]}
    for call in (onnxport.export, onnxport.check):
        with pytest.raises(PluginError, match=r"The plugin 'cases_broken' \(cases-broken 1\.0\)") as caught:
            call(RELU, (X,), **options)
        assert words in str(caught.value)
        assert isinstance(caught.value.__cause__, cause)
        assert caught.value.plugins == ["cases_broken"]


def test_one_that_lies_around_is_skipped_with_a_warning(packs: Any) -> None:
    packs("cases_broken", "import a_module_that_is_not_there\n")
    packs("cases_misspelt", MISSPELT)
    with said() as heard:
        assert onnxport.export(RELU, (X,))
    for name in ("cases_broken", "cases_misspelt"):
        assert any(f"onnxport plugin {name!r}" in text and "is skipped" in text for text in heard)
    assert "cases_broken" not in discovery.load().names
    with said() as heard:
        assert onnxport.export(RELU, (X,), plugins=())
    assert not heard


def test_it_is_no_longer_an_error_once_it_works(packs: Any) -> None:
    packs("cases_sometimes", "import os\nif os.environ.get('CASES_BROKEN'): raise ValueError('now')\n" + GOOD)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CASES_BROKEN", "1")
        with pytest.raises(PluginError, match="ValueError: now"):
            discovery.load(["cases_sometimes"])
    assert discovery.load(["cases_sometimes"]).names == ["builtin", "cases_sometimes"]


class Misspelt:
    @hookimpl
    def onnxport_translation(self):
        return []


class Unmarked:
    def onnxport_translations(self):
        return []


class Good:
    @hookimpl
    def onnxport_translations(self):
        return []


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (Misspelt(), "'Misspelt' can't be used: ValueError: no hook is named 'onnxport_translation'"),
        (Unmarked(), "decorate it with @onnxport.hookimpl"),
        (Good, r"Good is a class: give an instance of it, Good\(\)"),
        (object(), "it has no hooks"),
        (len, "it has no hooks"),
        (types.ModuleType("empty"), "'empty' can't be used: ValueError: it has no hooks"),
    ],
)
def test_objects(plugin: object, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        onnxport.export(RELU, (X,), plugins=[plugin])


@pytest.mark.parametrize("value", [3, "abc", [None], [3], True, 3.5, [b"x"]])
def test_what_is_no_list_of_plugins(value: Any) -> None:
    with pytest.raises(PluginError, match="plugins"):
        onnxport.export(RELU, (X,), plugins=value)


def test_objects_of_one_class_are_several_plugins() -> None:
    one, two = Good(), Good()
    loaded = discovery.load([one, two, one, "builtin"])
    assert loaded.names == ["builtin", "Good", "Good_2"]
    assert [info.name for info in loaded.infos] == loaded.names


def test_objects_that_compare_as_they_like() -> None:
    class Equal(Good):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    one, two = Equal(), Equal()
    assert discovery.load([one, two]).names == ["builtin", "Equal", "Equal_2"]
    assert discovery.load([one]) is discovery.load([one]) is not discovery.load([two])
    assert onnxport.export(RELU, (X,), plugins=iter([one])), "an iterator is read once"

"""What a zoo's file may say, which models a pattern stands for, and what the commands say of a wrong call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxport
import onnxport_zoo
import pytest
import torch
import typer
from onnxport.kit import UsageError
from onnxport_zoo import content, resolvers
from onnxport_zoo.cases import Case, bytes_of, read_zoo
from onnxport_zoo.resolvers import Resolver
from onnxport_zoo.task import example_of
from typer.testing import CliRunner
from zoo_support import performed, statuses


def zoo(folder: Path, text: str) -> Path:
    path = folder / "zoo.toml"
    path.write_text(text)
    return path


def test_cases_are_products(tmp_path: Path) -> None:
    text = """
        [defaults]
        opsets = [18, 23]
        seconds = 60
        memory = "2 GiB"

        [[cases]]
        models = ["a.py:f", "b.pt2"]
        dtypes = ["float32", "float16"]

        [[cases]]
        model = "a.py:f"
        opsets = []
        runtimes = ["onnx", "onnxruntime-cpu"]
        options = { optimize = false }
        verify = { rtol = 0.01 }
        label = "plain"
        latency = false
        memory = 1000
    """
    cases = read_zoo(zoo(tmp_path, text))
    assert [case.name for case in cases] == [
        "a.py:f [opset 18] [float32]",
        "a.py:f [opset 18] [float16]",
        "a.py:f [opset 23] [float32]",
        "a.py:f [opset 23] [float16]",
        "b.pt2 [opset 18] [float32]",
        "b.pt2 [opset 18] [float16]",
        "b.pt2 [opset 23] [float32]",
        "b.pt2 [opset 23] [float16]",
        "a.py:f [plain]",
        "a.py:f [onnxruntime-cpu] [plain]",
    ]
    assert (cases[0].seconds, cases[0].memory, cases[0].latency) == (60, 2 * 2**30, True)
    last = cases[-1]
    assert (last.opset, last.options, last.verify) == (None, {"optimize": False}, {"rtol": 0.01})
    assert (last.runtime, last.memory, last.latency, last.seconds) == ("onnxruntime-cpu", 1000, False, 60)


WRONG = {
    "no file": (None, "can't be read"),
    "no TOML": ("[[cases", "no TOML"),
    "no cases": ("[defaults]\nopsets = [20]", "no cases"),
    "another table": ("[other]\n[[cases]]\nmodel = 'a:b'", "other"),
    "unknown key": ("[[cases]]\nmodel = 'a:b'\nopset = 20", "unknown key opset"),
    "no model": ("[[cases]]\nopsets = [20]", "model"),
    "both": ("[[cases]]\nmodel = 'a:b'\nmodels = ['c:d']", "either"),
    "no list": ("[[cases]]\nmodel = 'a:b'\nopsets = 20", "a list of int"),
    "no number": ("[[cases]]\nmodel = 'a:b'\nopsets = ['20']", "opsets"),
    "a flag for a number": ("[[cases]]\nmodel = 'a:b'\nopsets = [true]", "opsets"),
    "no dtype": ("[[cases]]\nmodel = 'a:b'\ndtypes = ['float']", "float16"),
    "no size": ("[[cases]]\nmodel = 'a:b'\nmemory = 'much'", "4 GiB"),
    "twice": ("[[cases]]\nmodel = 'a:b'\n[[cases]]\nmodel = 'a:b'", "label"),
    "no resolver": ("[[cases]]\nmodel = 'nobody:*'", "no resolver"),
    "no match": ("[[cases]]\nmodel = 'torchvision:nothing*'", "no model"),
    "cases of another type": ("cases = 3", "no cases"),
    "a case of another type": ("cases = [3]", "[[cases]]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_zoo_has(name: str, tmp_path: Path) -> None:
    text, told = WRONG[name]
    with pytest.raises(UsageError) as caught:
        read_zoo(tmp_path / "zoo.toml" if text is None else zoo(tmp_path, text))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4 GiB", 2**32), ("4GB", 4 * 10**9), ("1.5 MiB", 3 * 2**19), ("7", 7), ("2k", 2000), (5, 5), ("3 KiB", 3072)],
)
def test_sizes(text: int | str, size: int) -> None:
    assert bytes_of(text, "here") == size


def test_resolvers_of_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def example(name: str) -> dict[str, Any]:
        return {"model": torch.nn.Linear(int(name[-1]), 2).eval(), "args": (torch.zeros(1, int(name[-1])),)}

    class Entry:
        name, value = "mine", "pack:resolver"

        def load(self) -> Any:
            return Resolver(lambda: ["net2", "net1", "other3"], example)

    class Broken(Entry):
        def load(self) -> Any:
            raise ImportError("no such module")

    class Other(Entry):
        def load(self) -> Any:
            return 3

    entries = {"mine": Entry(), "broken": Broken(), "other": Other()}
    monkeypatch.setattr(resolvers, "_entries", lambda: entries)
    resolvers.resolver_named.cache_clear()
    try:
        cases = read_zoo(zoo(tmp_path, "[[cases]]\nmodels = ['mine:net*', 'mine:other3']\nexclude = ['*2']"))
        assert [case.model for case in cases] == ["mine:net1", "mine:other3"]
        assert example_of(cases[1]).args[0].shape == (1, 3)
        for name in ("broken", "other"):
            with pytest.raises(UsageError, match=name):
                read_zoo(zoo(tmp_path, f"[[cases]]\nmodel = '{name}:*'"))
    finally:
        resolvers.resolver_named.cache_clear()


def test_libraries_of_models() -> None:
    pytest.importorskip("torchvision")
    torchvision, families = resolvers.resolver_named("torchvision"), resolvers.resolver_named("timm-families")
    assert torchvision is not None and families is not None
    assert {"resnet18", "raft_small", "quantized_resnet18", "maskrcnn_resnet50_fpn"} <= set(torchvision.matching("*"))
    example = torchvision.example("raft_small")
    assert example["args"][0].shape == (2, 3, 128, 128)
    pytest.importorskip("timm")
    assert {"resnet", "vision_transformer"} <= set(families.matching("*"))
    assert families.example("vision_transformer")["args"][0].dim() == 4


def test_dtypes_of_a_case(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\n"
        "def net():\n"
        "    args = (torch.zeros(1, 2), [torch.zeros(1, dtype=torch.int64)], {'y': torch.zeros(2)})\n"
        "    return torch.nn.Linear(2, 2).eval(), args\n"
    )
    example = example_of(Case("nets.py:net", str(tmp_path), dtype="float16"))
    x, [i], y = example.args
    assert (x.dtype, i.dtype, y["y"].dtype) == (torch.float16, torch.int64, torch.float16)
    assert example.model.weight.dtype == torch.float16
    again = example_of(Case("nets.py:net", str(tmp_path), dtype="float16"))
    assert torch.equal(example.model.weight, again.model.weight)  # drawn by the same seed


def test_captured_programs(tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "net.pt2")
    example = example_of(Case("net.pt2", str(tmp_path)))
    assert isinstance(example.model, torch.export.ExportedProgram)
    with pytest.raises(UsageError, match="dtypes"):
        example_of(Case("net.pt2", str(tmp_path), dtype="float16"))


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.command("other")(lambda: None)
    onnxport_zoo.onnxport_commands(made)
    return made


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "absent.toml", "-o", "out"], "can't be read"),
        (["run", "zoo.toml", "-o", "out", "--engine", "cloud"], "local and ray"),
        (["run", "zoo.toml", "-o", "out", "--address", "auto"], "ray only"),
        (["run", "zoo.toml", "-o", "out", "--again", "bad"], "timeout"),
        (["diff", "absent", "out"], "has no run"),
        (["diff", "out", "out", "--fail-on", "anything"], "regression"),
        (["page", "absent"], "has no run"),
    ],
)
def test_wrong_calls(
    app: typer.Typer, arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zoo(tmp_path, "[[cases]]\nmodel = 'a.py:f'")
    done = CliRunner().invoke(app, ["zoo", *arguments])
    assert done.exit_code == 2 and told in done.output
    with_json = CliRunner().invoke(app, ["zoo", *arguments, "--json"])
    assert with_json.exit_code == 2 and told in json.loads(with_json.stdout)["error"]["message"]


def test_the_public_names() -> None:
    assert onnxport_zoo.__all__ == ["Resolver", "onnxport_commands"]
    assert issubclass(UsageError, Exception) and not issubclass(UsageError, onnxport.OnnxExporterError)


OWN = """
from onnxport_zoo import Resolver
import torch

def perform(name, settings):
    if name == "bad":
        raise RuntimeError("no such thing")
    return {"status": "wrong" if name == "b" else "passed", "message": name, "value": settings["options"].get("value")}

mine = Resolver(lambda: ["a", "b", "bad"], perform=perform, preload=("this",))
models = Resolver(lambda: ["relu"], lambda name: {"model": torch.nn.ReLU().eval(), "args": (torch.randn(2),)})
nothing = 3
"""


@pytest.mark.slow
def test_resolvers_of_a_zoo_itself(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    text = """
        [resolvers]
        mine = "own.py:mine"
        models = "own.py:models"
        [[cases]]
        models = ["mine:*", "models:*"]
        options = { value = 3 }
        [[cases]]
        model = "mine:a"
        label = "plain"
    """
    path = zoo(tmp_path, text.replace("options = { value = 3 }", "exclude = ['models:*']\noptions = { value = 3 }"))
    summary = performed(path, tmp_path / "out")
    assert statuses(summary) == {
        "mine:a": "passed",
        "mine:b": "wrong",
        "mine:bad": "failed",
        "mine:a [plain]": "passed",
    }
    first, wrong, bad, plain = summary.records
    assert (first["value"], plain["value"], wrong["message"], bad["stage"]) == (3, None, "b", "perform")
    assert "no such thing" in bad["message"] and list(first["stages"]) == ["perform"]
    cases = read_zoo(zoo(tmp_path, text.replace("options = { value = 3 }", "")))
    assert [case.name for case in cases][3] == "models:relu" and isinstance(example_of(cases[3]).model, torch.nn.ReLU)
    key = content.key_of(cases[0])
    (tmp_path / "own.py").write_text(OWN + "# another line")
    content._source.cache_clear()
    assert content.key_of(cases[0]) != key


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("own.py:missing", "missing"),
        ("own.py:nothing", "must be an onnxport_zoo.Resolver"),
        ("other.py:mine", "can't be imported"),
        ("own.py", "has a place for each name"),
    ],
)
def test_a_place_without_a_resolver(tmp_path: Path, place: str, message: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(UsageError, match=message):
        read_zoo(zoo(tmp_path, f"[resolvers]\nmine = '{place}'\n[[cases]]\nmodel = 'mine:a'"))


def test_a_resolver_has_an_example_or_performs() -> None:
    with pytest.raises(UsageError, match="give one of them"):
        Resolver(list)
    with pytest.raises(UsageError, match="give one of them"):
        Resolver(list, lambda name: {}, perform=lambda name, settings: {})

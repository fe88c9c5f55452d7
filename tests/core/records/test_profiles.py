"""Profiles: files for one runtime, and translations that are for some of them only."""

from __future__ import annotations

import json
from functools import partial

import onnx
import onnxport
import pytest
import torch
from onnxport import Pass, Profile, Translation
from onnxport_workbench.cli import app
from typer.testing import CliRunner


def special(seen, op, self, *, approximate="none"):
    seen.append(op.profile)
    return op.call("fast.domain", "Gelu", self)


def general(op, self, *, approximate="none"):
    return op.Neg(op.Neg(op.Gelu(self)))


class Pack:
    """A runtime with an operator of its own, and a translation for it; one for all runtimes has a lower rank."""

    def __init__(self, *profiles: object, pattern: str | None = "fast-*") -> None:
        self.profiles = profiles or (
            Profile("fast-cpu", "fast 2.0", {"fast.domain": 3}, 21, ("CPUExecutionProvider",), choices={"Gelu": "0.5"}),
            Profile("fast-gpu"),
        )
        self.pattern = pattern
        self.seen: list[Profile] = []

    @onnxport.hookimpl
    def onnxport_profiles(self):
        return list(self.profiles)

    @onnxport.hookimpl
    def onnxport_translations(self):
        return [
            Translation("aten::gelu", partial(special, self.seen), profile=self.pattern),
            Translation("aten::gelu", general, priority=5),
        ]


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.gelu(x)


def operators(program: onnxport.ONNXProgram) -> list[tuple[str, str]]:
    return [(node.domain, node.op_type) for node in program.model.graph]


def exported(pack: Pack, **options: object) -> onnxport.ONNXProgram:
    return onnxport.export(Model(), (torch.randn(2, 3),), plugins=[pack], verbose=False, **options)


def test_a_special_translation_serves_its_profiles_and_no_other_file() -> None:
    pack = Pack()
    assert operators(exported(pack)) == [("", "Gelu"), ("", "Neg"), ("", "Neg")]
    assert operators(exported(pack, runtime="fast-gpu")) == [("fast.domain", "Gelu")]
    program = exported(pack, runtime="fast-cpu")
    assert operators(program) == [("fast.domain", "Gelu")]
    assert dict(program.model.opset_imports) == {"": 21, "fast.domain": 3}
    assert exported(pack, runtime="fast-cpu", opset_version=20).model.opset_imports[""] == 20
    assert [profile.name for profile in pack.seen] == ["fast-gpu", "fast-cpu", "fast-cpu"]
    assert not any(profile.portable for profile in pack.seen)
    exported(pack, runtime="fast-cpu", portable=True)
    assert pack.seen[-1].portable


def test_a_pattern_that_names_one_profile() -> None:
    pack = Pack(pattern="fast-gpu")
    assert operators(exported(pack, runtime="fast-gpu")) == [("fast.domain", "Gelu")]
    assert operators(exported(pack, runtime="fast-cpu"))[0] == ("", "Gelu")


@pytest.mark.parametrize("runtime", ["fast-cpux", "onnxruntime-none", "", None, 3, ["fast-cpu"]])
def test_an_unknown_runtime_names_those_there_are(runtime: object) -> None:
    with pytest.raises(onnxport.InputError, match=r"'onnx', 'fast-cpu', 'fast-gpu'") as caught:
        exported(Pack(), runtime=runtime)
    assert caught.value.parameter == "runtime"
    if runtime == "fast-cpux":
        assert "Did you mean 'fast-cpu'?" in str(caught.value)
    with pytest.raises(onnxport.InputError, match="names no profile"):
        onnxport.check(Model(), (torch.randn(2),), plugins=[Pack()], runtime=runtime)


def test_portable_is_a_question_to_a_runtime() -> None:
    with pytest.raises(onnxport.InputError, match="has no effect on runtime='onnx'"):
        exported(Pack(), portable=True)
    with pytest.raises(onnxport.InputError, match="give True or False"):
        exported(Pack(), runtime="fast-cpu", portable=1)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (Profile(""), "name is ''"),
        (Profile(3), "name is 3"),
        (Profile("fast", domains={"a": "1"}), "the version of 'a' is '1'"),
        (Profile("fast", domains=["a"]), "domains is"),
        (Profile("fast", opset=7), "opset is 7"),
        (Profile("fast", kernels={}), "kernels is"),
        ("fast", "expected Profile objects"),
    ],
)
def test_a_profile_that_can_not_be_is_its_plugins_fault(profile: object, words: str) -> None:
    pack = Pack(profile)
    assert operators(exported(pack))  # others go on
    with pytest.raises(onnxport.InputError, match="there are: 'onnx'"):
        exported(pack, runtime="fast")
    from onnxport.kit import load

    (failed,) = load([pack]).failures
    assert words in failed.error


def test_two_profiles_of_one_name() -> None:
    with pytest.raises(onnxport.PluginError, match="both have a profile 'fast-cpu'"):
        exported(Pack(Profile("fast-cpu"), Profile("fast-cpu", "another")), runtime="fast-cpu")


@pytest.mark.parametrize("profile", [3, "", b"x"])
def test_a_pattern_that_can_not_be(profile: object) -> None:
    with pytest.raises(onnxport.PluginError, match="profile is"):
        onnxport.translation("aten::gelu", profile=profile)


def test_explain_tells_for_which_runtime_a_translation_is() -> None:
    from onnxport.kit import load
    from onnxport_workbench.explaining import explain

    told = explain(load([Pack()]).registry(20), "aten::gelu")
    assert any("is for runtime='fast-*', the target is 'onnx'" in reason for _, reason in told.rejected)
    told = explain(load([Pack()]).registry(20, "fast-cpu"), "aten::gelu")
    assert not told.rejected and told.candidates[0].profile == "fast-*"


def test_check_asks_the_profiles_table() -> None:
    kernels = {("", "Neg"): [(13, 2**31 - 1, {"T": ["tensor(float)"]})]}
    pack = Pack(Profile("fast-tiny", kernels=lambda: kernels), pattern=None)
    clean = onnxport.check(Model(), (torch.randn(2),), plugins=[pack], runtime="fast-tiny")
    assert not clean.missing_kernels  # the pack's own operator isn't of a domain that the table is about
    missing = onnxport.check(torch.nn.Tanh(), (torch.randn(2),), plugins=[pack], runtime="fast-tiny").missing_kernels
    assert [(found.provider, found.operator) for found in missing] == [("fast-tiny", "Tanh")]
    assert "fast-tiny has no kernel for it" in str(missing[0])


class Passes(Pack):
    """Steps that are for some profiles: each notes that it ran."""

    def __init__(self, pattern: object = "fast-*", **places: str) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.passes = {
            kind: [
                Pass(f"case.{kind}", partial(self.note, kind), profile=pattern, **places),
                Pass(f"case.{kind}_must", partial(self.note, f"{kind} required"), is_required=True, profile=pattern),
                Pass(f"case.{kind}_all", partial(self.note, f"{kind} all")),
            ]
            for kind in ("fx", "ir")
        }

    def note(self, name: str, _subject: object) -> int:
        self.ran.append(name)
        return 0

    @onnxport.hookimpl
    def onnxport_fx_passes(self):
        return self.passes["fx"]

    @onnxport.hookimpl
    def onnxport_ir_passes(self):
        return self.passes["ir"]


def test_a_pass_of_a_profile_runs_for_its_files_alone() -> None:
    pack = Passes()
    program = exported(pack)
    assert pack.ran == ["fx all", "ir all"]
    program.optimize()
    assert pack.ran == ["fx all", "ir all", "ir all"]
    pack.ran.clear()
    program = exported(pack, runtime="fast-gpu")
    every = ["fx", "fx required", "fx all", "ir", "ir required", "ir all"]
    assert pack.ran == every
    program.optimize()
    assert pack.ran == [*every, "ir", "ir required", "ir all"]
    pack.ran.clear()
    exported(pack, runtime="fast-gpu", optimize=False)
    assert pack.ran == ["fx", "fx required", "fx all", "ir required"]
    pack.ran.clear()
    exported(pack, optimize=False)
    assert pack.ran == ["fx all"]
    pack = Passes("fast-cpu")
    exported(pack, runtime="fast-gpu")
    assert pack.ran == ["fx all", "ir all"]


def test_a_pass_of_another_profile_needs_no_place() -> None:
    pack = Passes("fast-cpu", before="nowhere")
    assert exported(pack, runtime="fast-gpu") and onnxport.check(Model(), (torch.randn(2),), plugins=[pack])
    for call in (partial(exported, pack), partial(onnxport.check, Model(), (torch.randn(2),), plugins=[pack])):
        with pytest.raises(onnxport.PluginError, match="before='nowhere'"):
            call(runtime="fast-cpu")


@pytest.mark.parametrize("pattern", [3, "", ["fast-*"]])
def test_a_pass_with_a_pattern_that_can_not_be(pattern: object) -> None:
    from onnxport.kit import load

    loaded = load([Passes(pattern)])
    assert [step.name for step in loaded.fx_passes()] == []
    (failed,) = loaded.failures
    assert "the Pass 'case.fx': profile is" in failed.error


def test_the_command_line_lists_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxport.host import discovery

    entry = type("Entry", (), {"name": "fast", "dist": None, "load": lambda self: Pack()})()
    monkeypatch.setattr(discovery, "installed_plugins", lambda: {"fast": entry})
    monkeypatch.setattr(discovery, "_loaded", {})
    runner = CliRunner()
    result = runner.invoke(app, ["profiles", "--plugin", "fast"])
    assert result.exit_code == 0, result.output
    assert "fast-cpu" in result.output and "every runtime of ONNX" in result.output
    one = runner.invoke(app, ["profiles", "fast-cpu", "--plugin", "fast"])
    assert "opset 21" in one.output and "fast.domain" in one.output and "Gelu" in one.output
    told = json.loads(runner.invoke(app, ["profiles", "fast-cpu", "--json", "--plugin", "fast"]).stdout)
    assert told[0]["domains"] == {"fast.domain": 3} and told[0]["plugin"] == "fast"
    assert "names no profile" in runner.invoke(app, ["profiles", "other", "--plugin", "fast"]).output


def test_the_file_says_for_which_runtime_it_is(tmp_path) -> None:
    exported(Pack(), runtime="fast-cpu").save(tmp_path / "m.onnx")
    props = {p.key: p.value for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert props["onnxport.runtime"] == "fast-cpu"
    exported(Pack()).save(tmp_path / "n.onnx")
    assert "onnxport.runtime" not in {p.key for p in onnx.load(tmp_path / "n.onnx").metadata_props}

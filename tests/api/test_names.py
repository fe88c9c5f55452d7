"""What the package offers by name: its version, clean lists, types of results, and that it loads on other systems."""

from __future__ import annotations

import copy
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import importlib_metadata
import onnxport
import onnxport.authoring
import onnxport.kit
import onnxport.testing
import onnxport_workbench
import pytest
import torch
from onnxport import hookimpl

X = torch.randn(2, 3)


def test_the_version_is_the_installed_ones():
    assert onnxport.__version__ == importlib_metadata.version("onnxport")


@pytest.mark.parametrize("module", [onnxport, onnxport.authoring, onnxport.kit, onnxport.testing])
def test_lists_of_names_have_nothing_else(module):
    public = {name for name in dir(module) if not name.startswith("_")}
    assert public == {name for name in module.__all__ if not name.startswith("_")}
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert module.__doc__


@pytest.mark.parametrize("name", [name for name in onnxport.__all__ if callable(getattr(onnxport, name))])
def test_each_public_name_is_documented(name):
    assert inspect.getdoc(getattr(onnxport, name))


def test_each_result_has_json():
    model = torch.nn.Linear(3, 2).eval()
    program = onnxport.export(model, (X,))
    for result in (
        onnxport.check(model, (X,)),
        onnxport.verify(program),
        onnxport.find_mismatch(program),
    ):
        assert isinstance(json.loads(result.to_json()), (dict, list)), type(result)
    varied = onnxport.infer_dynamic_shapes(model, [((X,)), ((torch.randn(4, 3),))])
    (case,) = onnxport.testing.compare_with_eager(model, (X,))
    assert json.loads(varied.to_json())["args"] == [{"dtype": "float32", "shape": [4, 3]}]
    assert json.loads(case.to_json())["served"][0]["operator"] == "aten::linear"


def test_infinities_are_text_in_json():
    program = onnxport.export(torch.nn.ReLU(), (torch.tensor([float("inf"), float("nan")]),))
    result = onnxport.verify(program)
    result.comparisons[0].outputs[0].max_rel = float("nan")
    told = json.loads(result.to_json(), parse_constant=pytest.fail)
    assert told["passed"] and told["comparisons"][0]["outputs"][0]["max_rel"] == "nan"


def test_a_deep_copy_is_independent():
    program = onnxport.export(torch.nn.Linear(3, 2).eval(), (X,))
    copied = copy.deepcopy(program)
    assert torch.equal(copied(X)[0], program(X)[0])
    copied.apply_weights({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
    assert not torch.equal(copied(X)[0], program(X)[0])


def test_type_checkers_know_choices_and_parameters(tmp_path):
    source = tmp_path / "use.py"
    source.write_text(
        "import onnxport, torch\n"
        "m = torch.nn.ReLU()\n"
        "onnxport.export(m, mutation='drop', metadata='none', do_constant_folding=True)\n"
        "onnxport.export(m, mutation='keep')\n"
        "onnxport.export(m, metadata='all')\n"
        "onnxport.export(m, opset=18)\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", str(source)]
    paths = os.pathsep.join(str(Path(package.__file__).parents[1]) for package in (onnxport, onnxport_workbench))
    environment = {**os.environ, "MYPYPATH": paths}  # mypy doesn't follow an editable installation
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    lines = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == [4, 5, 6], done.stdout + done.stderr


class Pack:
    @hookimpl
    def onnxport_translations(self):
        return []


@pytest.mark.parametrize("wanted", [onnxport.API_VERSION, range(1, 10), (onnxport.API_VERSION,)])
def test_a_pack_states_the_versions_of_the_api_that_it_works_with(wanted):
    pack = Pack()
    pack.ONNXPORT_API = wanted
    program = onnxport.export(torch.nn.ReLU(), (X,), plugins=[pack])
    assert program.plugins is not None and len(program.plugins.infos) > 0
    assert not program.plugins.failures


@pytest.mark.parametrize("wanted", [onnxport.API_VERSION + 1, (7, 8), range(0)])
def test_a_pack_for_another_version_of_the_api_is_refused(wanted):
    pack = Pack()
    pack.ONNXPORT_API = wanted
    with pytest.raises(onnxport.PluginError, match="and onnxport has 1"):
        onnxport.export(torch.nn.ReLU(), (X,), plugins=[pack])


WITHOUT = """
import sys
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
import torch, onnxport
program = onnxport.export(torch.nn.Linear(3, 2).eval(), (torch.randn(2, 3),), "net.onnx", verify=True, report=True)
onnxport.ONNXProgram.load("net.onnx")(torch.randn(2, 3))
"""


def test_modules_that_only_posix_has_are_not_needed(tmp_path):
    """As on Windows. The platform itself can't be tested here."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "net.onnx").is_file()

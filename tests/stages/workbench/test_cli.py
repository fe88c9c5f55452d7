"""The command line: what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnxport.host import discovery
from onnxport_workbench import cli
from typer.testing import CliRunner

MODELS = """
import onnxport
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x, y=None):
        x = torch.relu(self.linear(x))
        return x if y is None else x + y

@torch.library.custom_op("clitest::strange", mutates_args=())
def strange(x: torch.Tensor) -> torch.Tensor:
    return x * 2

@strange.register_fake
def _(x):
    return torch.empty_like(x)

class Strange(torch.nn.Module):
    def forward(self, x):
        return torch.ops.clitest.strange(x)

def net():
    torch.manual_seed(0)
    return Net().eval(), (torch.randn(2, 4),)

def other_net():
    torch.manual_seed(1)
    return Net().eval(), (torch.randn(2, 4),)

def with_kwargs():
    return Net().eval(), (torch.randn(2, 4),), {"y": torch.randn(2, 3)}

def as_dict():
    return {"model": Net().eval(), "args": (torch.randn(2, 4),), "dynamic_shapes": ({0: "batch"}, None),
            "input_names": ["image"]}

def wrong_relu():
    table = {torch.ops.aten.relu.default: lambda op, self: op.Neg(self)}
    return {"model": Net().eval(), "args": (torch.randn(2, 4),), "custom_translation_table": table}

def refused():
    return Strange().eval(), (torch.randn(2, 4),)

def raises():
    raise ZeroDivisionError("in the factory")

def wrong():
    return 5

class Own(onnxport.ExportableModule):
    def forward(self, x):
        return x * 2

    def example_arguments(self):
        return (torch.randn(2, 4),), None

    def dynamic_shapes(self):
        return ({0: "rows"},)

class Told(Net):
    def __init__(self, inputs):
        super().__init__()
        self.example_inputs = inputs

class Dummy(Net):
    @property
    def dummy_inputs(self):
        return {"x": torch.randn(2, 4), "y": torch.randn(2, 3)}

def told():
    return Told((torch.randn(2, 4),)).eval()

def program():
    return torch.export.export(*net())

net_itself = told()

class Counter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return torch.rand_like(x) + self.count

def counter():
    return Counter().eval(), (torch.randn(2, 4),)

class Holder:
    make = staticmethod(net)

number = 5
"""


@pytest.fixture
def models(tmp_path, monkeypatch) -> str:
    (tmp_path / "cli_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "cli_models"


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_export(models, tmp_path):
    result = run("export", f"{models}:net", "-o", "net.onnx")
    assert result.exit_code == cli.OK, result.output
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert "net.onnx" in result.stdout


def test_export_json_and_options_of_the_factory(models, tmp_path):
    result = run("export", f"{models}:as_dict", "-o", "net.onnx", "--opset", 21, "--json", "--verify")
    assert result.exit_code == cli.OK, result.output
    summary = json.loads(result.stdout)
    assert summary["opset"] == 21
    assert list(summary["inputs"]) == ["image"]
    assert "batch" in summary["inputs"]["image"]
    assert (tmp_path / "net.onnx").exists()


def test_export_with_functions(models, tmp_path):
    result = run("export", f"{models}:net", "-o", "net.onnx", "--functions", "Linear", "--functions", "Net", "--json")
    assert result.exit_code == cli.OK, result.output
    assert json.loads(result.stdout)["functions"] == {"Linear": 1, "Net": 2}
    assert [f.name for f in onnx.load(tmp_path / "net.onnx").functions] == ["Linear", "Net"]
    assert run("check", f"{models}:net", "--functions", "Linear").exit_code == cli.OK
    unknown = run("check", f"{models}:net", "--functions", "Lynear")
    assert unknown.exit_code == cli.USAGE and "Did you mean" in unknown.stderr


def test_export_with_rounded_weights(models, tmp_path):
    result = run("export", f"{models}:net", "-o", "net.onnx", "--quantize", "linear=uint4", "--verify", "--json")
    assert result.exit_code == cli.OK, result.output
    assert json.loads(result.stdout)["opset"] == 21
    types = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert types["linear.weight.uint4"] == onnx.TensorProto.UINT4
    for given, message in [("int5", "no format of weights"), ("=int4", "NAME=FORMAT"), ("liner=int4", "Did you mean")]:
        wrong = run("export", f"{models}:net", "-o", "net.onnx", "--quantize", given)
        assert wrong.exit_code == cli.USAGE and message in wrong.stderr


def test_export_in_half_precision(models, tmp_path):
    given = ("--dtype", "float16", "--keep", "linear", "--keep-io", "--verify")
    result = run("export", f"{models}:net", "-o", "net.onnx", *given)
    assert result.exit_code == cli.OK, result.output
    assert "compared with the float32 model, within the tolerances of float16" in result.output
    types = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert types["linear.weight"] == onnx.TensorProto.FLOAT
    for wrong in (("--dtype", "half"), ("--keep", "linear"), ("--dtype", "float16", "--keep", "liner")):
        assert run("export", f"{models}:net", "-o", "net.onnx", *wrong).exit_code == cli.USAGE, wrong


@pytest.mark.parametrize(
    ("spec", "inputs"),
    [
        ("cli_models:with_kwargs", {"x": [2, 4], "y": [2, 3]}),
        ("cli_models:Holder.make", {"x": [2, 4]}),
        ("cli_models.py:net", {"x": [2, 4]}),
        ("cli_models:Own", {"x": ["rows", 4]}),
        ("cli_models:told", {"x": [2, 4]}),
        ("cli_models:net_itself", {"x": [2, 4]}),
        ("cli_models:Dummy", {"x": [2, 4], "y": [2, 3]}),
        ("cli_models:program", {"x": [2, 4]}),
    ],
)
def test_ways_to_name_a_model(models, tmp_path, spec, inputs):
    result = run("export", spec, "--verify")
    assert result.exit_code == cli.OK, result.output
    graph = onnx.load(tmp_path / f"{spec.rpartition(':')[2]}.onnx").graph  # the default name
    dims = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    assert {name: [dim.dim_param or dim.dim_value for dim in shape] for name, shape in dims.items()} == inputs


def test_a_module_without_inputs_tells_what_it_needs(models):
    result = run("check", f"{models}:Net")
    assert result.exit_code == cli.USAGE and "'x'" in result.stderr


def test_names_dimensions_and_what_is_written(models, tmp_path):
    arguments = ["--dynamic", "x:0=batch", "--input-names", "image", "--output-names", "scores"]
    result = run(
        "export", f"{models}:net", "-o", "a.onnx", *arguments, "--metadata", "none", "--json", "--rename", "batch=rows"
    )
    assert result.exit_code == cli.OK, result.output
    summary = json.loads(result.stdout)
    assert summary["inputs"] == {"image": "FLOAT[rows, 4]"} and summary["outputs"] == {"scores": "FLOAT[rows, 3]"}
    model = onnx.load(tmp_path / "a.onnx")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "rows"
    assert not any(node.metadata_props for node in model.graph.node)
    several = run("export", f"{models}:with_kwargs", "--dynamic", "x:0=n", "--dynamic", "y:-2=n", "--json")
    assert json.loads(several.stdout)["inputs"] == {"x": "FLOAT[n, 4]", "y": "FLOAT[n, 3]"}
    both = run("check", f"{models}:net", "--dynamic", "x:0=n,1=m", "--json")
    assert both.exit_code != cli.OK and json.loads(both.stdout)["error"]["type"] == "DynamicShapesError"
    anything = run("export", f"{models}:net", "--dynamic", "x:0", "--json")
    assert json.loads(anything.stdout)["inputs"] == {"x": "FLOAT[x_dim_0, 4]"}


def test_mutation_and_seed(models, tmp_path):
    files = [tmp_path / f"{seed}.onnx" for seed in (1, 2)]
    for seed, file in zip((1, 2), files):
        result = run("export", f"{models}:counter", "-o", file, "--mutation", "drop", "--seed", seed)
        assert result.exit_code == cli.OK, result.output
        assert len(onnx.load(file).graph.output) == 1
    assert files[0].read_bytes() != files[1].read_bytes()
    refused = run("export", f"{models}:counter", "-o", "no.onnx", "--mutation", "error", "--json")
    assert refused.exit_code == cli.REFUSED
    assert json.loads(refused.stdout)["error"]["targets"] == ["count"] and not (tmp_path / "no.onnx").exists()


def test_saved_program_with_custom_operators(models, tmp_path):
    source = MODELS.replace("clitest::", "clilib::").replace("ops.clitest", "ops.clilib")
    (tmp_path / "clilib.py").write_text(source)
    save = "import torch, clilib; torch.export.save(torch.export.export(*clilib.refused()), 'strange.pt2')"
    subprocess.run([sys.executable, "-c", save], check=True, cwd=tmp_path)
    result = run("check", "strange.pt2")
    assert result.exit_code == cli.USAGE and "--import" in result.stderr
    result = run("check", "strange.pt2", "--import", "clilib")
    assert result.exit_code == cli.REFUSED and "clilib::strange" in result.stdout


def test_what_was_verified_and_where_the_report_is(models, tmp_path):
    result = run("export", f"{models}:net", "--dynamic", "x:0=batch", "--verify", "--report")
    assert result.exit_code == cli.OK, result.output
    assert "batch=" in result.stdout and "onnx.checker: ok" in result.stdout
    assert all(len(line) <= 80 for line in result.stdout.splitlines() if not line.startswith("report: "))
    pages = [line.removeprefix("report: ") for line in result.stdout.splitlines() if line.startswith("report: ")]
    assert sorted(Path(page).suffix for page in pages) == [".html", ".json", ".md"]
    assert all(Path(page).is_file() for page in pages)
    data = json.loads(run("export", f"{models}:net", "--verify", "--report", "--json").stdout)
    assert data["verification"]["passed"] and Path(data["report"][0]).is_file()
    plain = json.loads(run("export", f"{models}:net", "--json").stdout)
    assert plain["verification"] is None and plain["report"] is None
    wrong = run("export", f"{models}:wrong_relu", "-o", "wrong.onnx", "--verify", "--report", "--json")
    data = json.loads(wrong.stdout)
    assert wrong.exit_code == data["exit_code"] == cli.REFUSED and not (tmp_path / "wrong.onnx").exists()
    assert data["error"]["result"]["passed"] is False and Path(data["report"][0]).is_file()
    told = run("export", f"{models}:wrong_relu", "-o", "wrong.onnx", "--report", "--verify").stderr
    assert "report: " in told


def test_profile(models):
    result = run("export", f"{models}:net", "--profile", "--json")
    stages = json.loads(result.stdout)["stages"]
    assert "translate" in [stage["name"] for stage in stages] and all(stage["seconds"] >= 0 for stage in stages)
    result = run("export", f"{models}:net", "--profile", "--report")
    page = next(line for line in result.stdout.splitlines() if line.endswith("success.md"))
    assert "## Slowest nodes" in Path(page.removeprefix("report: ")).read_text()
    assert "\ntranslate " in result.stdout


def test_verbose_tells_the_steps(models):
    result = run("export", f"{models}:net", "-v")
    assert [step for step in ("capture:", "translate:", "save:") if step not in result.stderr] == []
    assert "aten::relu: 1" in run("check", f"{models}:net", "-v").stdout


def test_saved_program(models, tmp_path):
    model, args = torch.nn.Linear(4, 3).eval(), (torch.randn(2, 4),)
    torch.export.save(torch.export.export(model, args), tmp_path / "net.pt2")
    assert run("export", "net.pt2", "-o", "net.onnx").exit_code == cli.OK
    (tmp_path / "broken.pt2").write_bytes(b"nothing")
    for spec in ("broken.pt2", "missing.pt2"):
        result = run("export", spec, "-o", "other.onnx")
        assert result.exit_code == cli.USAGE
        assert spec in result.stderr
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere:net", "can't be imported"),
        ("nowhere.py:net", "no file"),
        ("cli_models", "MODULE:FACTORY"),
        ("cli_models:nothing", "has no nothing"),
        ("cli_models:number", "isn't callable"),
        ("cli_models:wrong", "must return"),
        ("cli_models:raises", "ZeroDivisionError: in the factory"),
    ],
)
def test_bad_models(models, tmp_path, spec, message):
    for command in (["export", spec, "-o", "bad.onnx"], ["check", spec]):
        result = run(*command)
        assert result.exit_code == cli.USAGE
        assert message in result.stderr
    assert not (tmp_path / "bad.onnx").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["export"],
        ["export", "cli_models:net", "-o", "x.onnx", "--mutation", "keep"],
        ["export", "cli_models:net", "-o", "x.onnx", "--dynamic", "x=batch"],
        ["export", "cli_models:net", "-o", "x.onnx", "--dynamic", "z:0=batch"],
        ["export", "cli_models:net", "-o", "x.onnx", "--rename", "s77"],
        ["export", "cli_models:net", "-o", "x.onnx", "--rename", "s77=batch"],
        ["export", "cli_models:net", "-o", "x.onnx", "--input-names", "a,"],
        ["export", "cli_models:net", "-o", "x.onnx", "--import", "nowhere"],
        ["export", "cli_models:net", "-o", "x.onnx", "--opset", "nine"],
        ["export", "cli_models:net", "-o", "x.onnx", "--opset", "5"],
        ["export", "cli_models:net", "-o", "x.onnx", "--plugin", "nowhere"],
        ["unknown"],
        ["plugins", "--plugin", "nowhere"],
        ["explain", "no_such_thing"],
        ["verify", "missing.onnx", "cli_models:net"],
    ],
)
def test_bad_usage(models, tmp_path, arguments):
    assert run(*arguments).exit_code == cli.USAGE
    assert not (tmp_path / "x.onnx").exists()


def test_refusal(models, tmp_path):
    result = run("export", f"{models}:refused", "-o", "refused.onnx")
    assert result.exit_code == cli.REFUSED
    assert "clitest::strange" in result.stderr
    assert not list(tmp_path.glob("*.onnx*"))


def test_check(models):
    assert run("check", f"{models}:net").exit_code == cli.OK
    assert run("check", f"{models}:as_dict").exit_code == cli.OK
    result = run("check", f"{models}:refused", "--json")
    assert result.exit_code == cli.REFUSED
    assert json.loads(result.stdout)["refusals"][0]["target"] == "clitest::strange"


def test_verify(models):
    assert run("export", f"{models}:net", "-o", "net.onnx").exit_code == cli.OK
    assert run("verify", "net.onnx", f"{models}:net").exit_code == cli.OK
    result = run("verify", "net.onnx", f"{models}:other_net", "--json")
    assert result.exit_code == cli.REFUSED
    assert json.loads(result.stdout)["passed"] is False


def test_find_mismatch(models, tmp_path):
    result = run("find-mismatch", f"{models}:as_dict", "--json")
    assert result.exit_code == cli.OK, result.output
    assert json.loads(result.stdout)["passed"] is True
    result = run("find-mismatch", f"{models}:wrong_relu", "--repro", "repro")
    assert result.exit_code == cli.REFUSED
    assert "aten::relu" in result.stdout and (tmp_path / "repro" / "node.onnx").exists()


def test_internal_errors(models, monkeypatch):
    import onnxport

    def broken(*args, **kwargs):
        raise RuntimeError("a defect")

    monkeypatch.setattr(onnxport, "export", broken)
    result = run("export", f"{models}:net", "-o", "net.onnx")
    assert result.exit_code == cli.INTERNAL
    assert "a defect" in result.stderr
    assert "report it" in result.stderr


def test_ops():
    result = run("ops", "aten::gelu", "--json")
    assert result.exit_code == cli.OK
    entries = json.loads(result.stdout)
    assert entries
    assert {entry["plugin"] for entry in entries} == {"builtin"}
    assert all(entry["target"].startswith("aten::gelu") for entry in entries)
    assert "aten::gelu" in run("ops", "gelu").stdout


@pytest.mark.parametrize("pattern", ["aten::gelu*", "gelu", "*gelu", "ge?u", "aten::[g]elu"])
def test_ops_by_glob(pattern):
    assert "aten::gelu " in run("ops", pattern).stdout


def test_ops_that_match_nothing():
    result = run("ops", "gelo")
    assert result.exit_code == cli.REFUSED and not result.stdout.strip()
    assert "No operator matches 'gelo'" in result.stderr and "aten::gelu" in result.stderr
    result = run("ops", "nothing::*", "--json")
    assert result.exit_code == cli.REFUSED and json.loads(result.stdout) == []


def test_explain():
    result = run("explain", "aten::add.Tensor", "--plugin", "builtin", "--json")
    assert result.exit_code == cli.OK
    first = json.loads(result.stdout)["candidates"][0]
    assert (first["target"], first["plugin"]) == ("aten::add.Tensor", "builtin")
    path, _, line = first["location"].rpartition(":")
    assert path.startswith("onnxport_builtin/") and int(line) > 0
    text = run("explain", "aten::add.Tensor", "--plugin", "builtin").stdout
    assert "plugin builtin" in text
    schema = "aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor"
    assert schema in text and json.loads(result.stdout)["schema"] == schema


@pytest.mark.parametrize("spelling", ["aten.gelu.default", "torch.ops.aten.gelu.default", "gelu", "aten::gelu"])
def test_explain_by_any_spelling(spelling):
    result = run("explain", spelling)
    assert result.exit_code == cli.OK and "aten::gelu(Tensor self" in result.stdout
    assert run("explain", "operator.add").exit_code == cli.OK
    assert "Did you mean" in run("explain", "gelo").stderr


def test_explain_shows_the_whole_docstring(packs):
    packs("clidocs", DOCUMENTED)
    text = run("explain", "aten::relu", "--plugin", "clidocs").stdout
    assert "The first line." in text and "The formula" in text


DOCUMENTED = '''
import sys
from onnxport import collect, hookimpl, translation

@translation("aten::relu")
def relu(op, self):
    """The first line.

    The formula of the second paragraph.
    """
    return op.Relu(self)

@hookimpl
def onnxport_translations():
    return collect(sys.modules[__name__])
'''


def test_explain_what_has_no_translation():
    result = run("explain", "nosuch::op")
    assert result.exit_code == cli.REFUSED
    assert "no translation" in result.stdout


def test_plugins():
    result = run("plugins", "--plugin", "builtin", "--json")
    assert result.exit_code == cli.OK
    (entry,) = json.loads(result.stdout)
    assert entry["name"] == "builtin" and entry["translations"] > 0 and not entry["error"]


def test_version_and_help():
    assert run("--version").stdout.startswith("onnxport ")
    assert "explain" in run("--help").stdout


def test_help_of_each_command_by_its_short_option():
    for command in ("export", "check", "verify", "find-mismatch", "view", "ops", "explain", "plugins", "profiles"):
        assert run(command, "-h").exit_code == cli.OK
    assert "Exit codes: 0 done" in " ".join(run("-h").stdout.split())
    assert "--install-completion" in run("--help").stdout


def test_completion(monkeypatch):
    monkeypatch.setenv("_ONNXPORT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "onnxport export net.py:make --mutation ")
    monkeypatch.setenv("COMP_CWORD", "4")
    found = CliRunner().invoke(cli.app, [], prog_name="onnxport")
    assert found.stdout.split() == ["outputs", "error", "drop"]


WITHOUT_TORCH = """
import sys, time
sys.argv = ["onnxport", *{arguments!r}]
from onnxport_workbench.cli import main
try: main()
except SystemExit: pass
sys.exit("torch" in sys.modules)
"""


@pytest.mark.parametrize("arguments", [["ops", "--help"], ["--help"], ["-h"], ["--version"], ["plugins"]])
def test_what_does_not_import_torch(tmp_path, arguments):
    """Whatever has no need of it, so that it answers at once; the list of plugins, where nothing has changed.

    Packs that bring commands are imported, and torch with them: none takes part here.
    """
    code, environment = WITHOUT_TORCH.format(arguments=arguments), {**os.environ, "ONNXPORT_PLUGINS": "builtin"}
    for _ in range(1 + (arguments == ["plugins"])):  # the first time the list is made, and kept
        done = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment
        )
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "m:net"], "Exporting m:net"),
        (["check", "m:net"], "Checking m:net"),
        (["verify", "m.onnx", "m:net"], "Verifying m.onnx"),
        (["find-mismatch", "m:net"], "Exporting m:net"),
        (["view", "m.onnx"], "Reading m.onnx"),
        (["fix", "m.onnx", "--dim", "n=1"], "Fixing"),
        (["ops"], "Loading plugins"),
        (["explain", "gelu"], "Loading plugins"),
        (["profiles"], "Loading plugins"),
    ],
)
def test_first_words_come_before_torch(tmp_path, arguments, words):
    """torch takes seconds to load; here it can't be imported at all."""
    (tmp_path / "m.onnx").touch()
    script = "import sys; sys.modules['torch'] = None; from onnxport_workbench.cli import main; main()"
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode != 0 and done.stderr.splitlines()[0] == words


def test_the_list_of_plugins_follows_what_is_installed(packs, monkeypatch, tmp_path):
    from onnxport_workbench import plugin_list

    monkeypatch.setattr(plugin_list, "_FILE", tmp_path / "cache" / "plugins.json")
    plugin_list._distributions.cache_clear()
    first = run("plugins", "--json")
    assert plugin_list._FILE.is_file() and run("plugins", "--json").stdout == first.stdout
    assert "clidocs" not in first.stdout
    packs("clidocs", DOCUMENTED)
    plugin_list._distributions.cache_clear()
    found = {each["name"]: each for each in json.loads(run("plugins", "--json").stdout)}
    assert found["clidocs"]["translations"] == 1
    (tmp_path / "packs" / "clidocs.py").write_text("raise ImportError('broken')")
    monkeypatch.delitem(sys.modules, "clidocs")
    discovery.forget()
    for _ in range(2):  # what has failed isn't kept
        found = {each["name"]: each for each in json.loads(run("plugins", "--json").stdout)}
        assert "broken" in found["clidocs"]["error"]


COMMANDS = """
import typer
from onnxport import hookimpl

@hookimpl
def onnxport_commands(app):
    @app.command("cli-pack-info")
    def info():
        typer.echo("told by the pack")
"""


def test_commands_of_packs_are_found_in_their_source(packs, monkeypatch):
    from onnxport_workbench import plugin_list

    monkeypatch.setenv("ONNXPORT_PLUGINS", "clidocs,clicommands")  # installed packs may have some
    assert not plugin_list.may_have_commands()
    packs("clidocs", DOCUMENTED)
    assert not plugin_list.may_have_commands()
    packs("clicommands", COMMANDS)
    assert plugin_list.may_have_commands()


def test_module_is_the_console_script(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "onnxport", "nonsense"], check=False, capture_output=True, cwd=tmp_path
    )
    assert done.returncode == cli.USAGE

"""Without onnxruntime, models are exported, saved, loaded and shown; what runs one says what to install."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import onnxport

SCRIPT = """
import sys
sys.modules["onnxruntime"] = None  # as if it weren't installed
import torch, onnxport
from onnxport import testing

model, x = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()).eval(), torch.randn(2, 64)
program = onnxport.export(model, (x,), dynamic_shapes=({0: "batch"},), report=True, profile=True, artifacts_dir="pages")
program.save("model.onnx")
assert onnxport.ONNXProgram.load("model.onnx").model.graph
program.apply_weights(model.state_dict())
program.optimize()
program.fix(batch=2)
assert onnxport.export(model, (x,), quantize="int4").model.graph
assert not onnxport.check(model, (x,)).refusals
assert onnxport.view(program, "model.html").is_file()
assert "ONNXProgram" in program._repr_html_()
torch.testing.assert_close(program.call_reference(x)[0], model(x))
assert onnxport.VerificationResult and onnxport.MismatchResult

missing = 0
for run in (
    lambda: program(x),
    lambda: program.compute_values(["relu"], (x,)),
    lambda: program.initialize_inference_session(),
    lambda: onnxport.verify(program),
    lambda: onnxport.verify("model.onnx", model, (x,), providers=["CPUExecutionProvider"]),
    lambda: onnxport.export(model, (x,), verify=True),
    lambda: onnxport.find_mismatch(program),
    lambda: testing.compare_with_eager(model, (x,)),
):
    try:
        run()
    except onnxport.MissingRuntimeError as error:
        assert isinstance(error, ImportError) and isinstance(error, onnxport.OnnxExporterError)
        assert "Install it: pip install onnxruntime, or pip install onnxruntime-gpu" in str(error), error
        missing += 1
print("missing:", missing)
"""

COMMAND = """
import sys
sys.modules["onnxruntime"] = None
from onnxport_workbench.cli import main
main()
"""


def test_what_works_without_it_and_what_says_so(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["missing: 8"], done.stdout + done.stderr
    report = next((tmp_path / "pages").glob("*_success.md")).read_text()
    assert "Not measured: MissingRuntimeError: " in report


def test_the_command_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text("import torch\ndef net(): return torch.nn.ReLU(), (torch.randn(2),)\n")
    command = [sys.executable, "-c", COMMAND, "export", "models:net", "--verify"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install onnxruntime" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "net.onnx").exists()


def test_the_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(onnxport.MissingRuntimeError("install it")))
    assert isinstance(error, onnxport.MissingRuntimeError) and str(error) == "install it"

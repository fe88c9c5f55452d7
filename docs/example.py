"""``make example``: a torchvision model with a dynamic batch, exported, checked, and run against eager torch."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import onnx
import onnxport
import onnxruntime
import torch
import torchvision
from rich.console import Console
from rich.table import Table

# Batch sizes that the export never saw.
BATCHES = (1, 3, 8)


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
    console = Console(highlight=False)
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    image = torch.randn(2, 3, 224, 224)

    start = time.perf_counter()
    program = onnxport.export(
        model,
        (image,),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),
    )
    seconds = time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet18.onnx"
        program.save(path)
        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        size = sum(file.stat().st_size for file in path.parent.iterdir())

        graph = program.model.graph
        counts = Counter(node.op_type for node in graph)
        console.print(f"torchvision resnet18 exported in {seconds:.1f} s, capture included")
        console.print(f"  opset {graph.opset_imports['']}, {len(graph)} nodes, {size / 2**20:.1f} MiB, checked by onnx")
        console.print("  " + ", ".join(f"{count} {name}" for name, count in counts.most_common()))
        for value in (*graph.inputs, *graph.outputs):
            console.print(f"  {value.name}: {value.dtype} {value.shape}", markup=False)

        table = Table("batch", "output shape", "largest difference from eager torch", "same top class")
        for batch in BATCHES:
            images = torch.randn(batch, 3, 224, 224)
            with torch.no_grad():
                expected = model(images)
            (logits,) = session.run(None, {"image": images.numpy()})
            got = torch.from_numpy(logits)
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
            same = bool((got.argmax(1) == expected.argmax(1)).all())
            table.add_row(str(batch), str(tuple(got.shape)), f"{(got - expected).abs().max():.1e}", str(same))
        console.print(table)


if __name__ == "__main__":
    main()

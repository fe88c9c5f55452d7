"""One token of a Llama (4 layers, 1024 wide, 16/4 heads, 32k words) with weights in 4 and 8 bits, against float32.

CPU time of one thread in one process, the files taking turns; the median of the rounds. The aim is 0.27 for int4.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import onnxport
import onnxruntime
import torch
from torch import nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

FORMATS: dict[str, Any] = {
    "float32": None,
    "int4": "int4",
    "int4, 32": {"bits": 4, "block_size": 32},
    "uint4": "uint4",
    "int8": "int8",
}


class Decoder(nn.Module):
    """A Llama whose cache is inputs and outputs."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.config = LlamaConfig(
            hidden_size=1024,
            intermediate_size=2816,
            num_hidden_layers=layers,
            num_attention_heads=16,
            num_key_value_heads=4,
            vocab_size=32000,
            max_position_embeddings=4096,
        )
        self.model = LlamaForCausalLM(self.config)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        cache = DynamicCache(config=self.config)
        for i in range(self.config.num_hidden_layers):
            cache.update(past[2 * i], past[2 * i + 1], i)
        out = self.model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        return out.logits, *(tensor for layer in out.past_key_values.layers for tensor in (layer.keys, layer.values))


def inputs(layers: int, past: int) -> tuple[torch.Tensor, ...]:
    cache = [torch.randn(1, 4, past, 64) for _ in range(2 * layers)]
    return torch.randint(0, 32000, (1, 1)), torch.ones(1, past + 1, dtype=torch.int64), *cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--opset", type=int, default=21)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = Decoder(options.layers).eval()
    past = torch.export.Dim("past", min=2, max=4000)
    shapes = (None, {1: past + 1}, tuple({2: past} for _ in range(2 * options.layers)))
    sessions = {}
    for name, quantize in FORMATS.items():
        program = onnxport.export(
            model, inputs(options.layers, 512), dynamic_shapes=shapes, opset_version=options.opset, quantize=quantize
        )
        names = [str(value.name) for value in program.model.graph.inputs]
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            program.save(path, external_data=True)
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
            sessions[name] = onnxruntime.InferenceSession(path, session_options, providers=["CPUExecutionProvider"])
        print(f"{name}: {size / 2**20:.0f} MiB")
    for length in (16, 512, 1536):
        feeds = dict(zip(names, (tensor.numpy() for tensor in inputs(options.layers, length))))
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(options.rounds):
            for name, session in sessions.items():
                start = time.process_time()
                session.run(None, feeds)
                taken[name].append(time.process_time() - start)
        medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
        told = ", ".join(f"{n} {s * 1e3:.1f} ms ({s / medians['float32']:.2f})" for n, s in medians.items())
        print(f"after {length} tokens: {told}")


if __name__ == "__main__":
    main()

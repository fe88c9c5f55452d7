"""Tools that call torch's exporter use onnxport unchanged under ``as_torch_onnx()``."""

from __future__ import annotations

import copy
import inspect
import threading
from pathlib import Path
from typing import Any

import onnx
import onnxport
import pytest
import torch
from torch import nn
from torch.onnx import ExportableModule, OnnxExporterError, ONNXProgram, is_in_onnx_export
from torch.onnx import export as imported_before
from torch.utils import _pytree as pytree

X = torch.randn(2, 3)
CODE = imported_before.__code__


def restored() -> bool:
    return torch.onnx.export is imported_before and imported_before.__code__ is CODE and not vars(imported_before)


@pytest.fixture(autouse=True)
def _restores() -> Any:
    assert restored()
    yield
    assert restored()


def test_the_function_means_onnxport_however_it_was_imported(tmp_path: Path) -> None:
    signature = inspect.signature(torch.onnx.export)
    with onnxport.as_torch_onnx():
        from torch.onnx import export as imported_inside

        programs = [
            export(nn.Linear(3, 4).eval(), (X,), tmp_path / "model.onnx", input_names=["x"], dynamo=True, verbose=False)
            for export in (imported_before, imported_inside, torch.onnx.export)
        ]
        assert inspect.signature(torch.onnx.export) == signature
    for program in programs:
        assert isinstance(program, onnxport.ONNXProgram)
        assert isinstance(program, ONNXProgram)
        assert program.model.producer_name == "onnxport"
        assert type(program).save is onnxport.ONNXProgram.save
    assert onnx.load(tmp_path / "model.onnx").producer_name == "onnxport"


def test_methods_of_the_program(tmp_path: Path) -> None:
    model = nn.Linear(3, 4).eval()
    with onnxport.as_torch_onnx():
        program: Any = torch.onnx.export(model, (X,), dynamic_shapes=({0: "batch"},))
    other = torch.randn(5, 3)
    torch.testing.assert_close(program(other)[0], model(other))
    program.optimize()
    program.apply_weights({name: 2 * weight for name, weight in model.state_dict().items()})
    torch.testing.assert_close(program(other)[0], 2 * model(other))
    program.save(tmp_path / "model.onnx")
    assert program.model_proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert repr(program).startswith("ONNXProgram(")
    program.release()


def test_it_ends_with_an_exception() -> None:
    with pytest.raises(KeyError), onnxport.as_torch_onnx():
        raise KeyError
    assert restored()


def test_errors_are_those_of_torch_too() -> None:
    with onnxport.as_torch_onnx(), pytest.raises(OnnxExporterError) as caught:
        torch.onnx.export(nn.Linear(3, 4).eval(), (torch.randn(2, 5),))
    assert isinstance(caught.value, onnxport.CaptureError)
    with onnxport.as_torch_onnx(), pytest.raises(OnnxExporterError, match="metadata="):
        torch.onnx.export(nn.Linear(3, 4).eval(), (X,), metadata="some")


def test_it_can_be_nested_and_decorate() -> None:
    @onnxport.as_torch_onnx()
    def exported() -> Any:
        return torch.onnx.export(nn.Linear(3, 4).eval(), (X,))

    with onnxport.as_torch_onnx():
        with onnxport.as_torch_onnx():
            assert not restored()
        assert not restored()
        assert exported().model.producer_name == "onnxport"
        assert not restored()
    assert restored()
    assert exported().model.producer_name == "onnxport"


def test_the_last_thread_restores() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with onnxport.as_torch_onnx():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with onnxport.as_torch_onnx():
        thread.start()
        assert inside.wait(10)
    assert not restored()
    leave.set()
    thread.join(10)
    assert restored()


def test_a_function_that_somebody_wrapped_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def wrapped(*args: Any, **kwargs: Any) -> None:
        calls.append(args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.onnx, "export", wrapped)
        with onnxport.as_torch_onnx():
            assert torch.onnx.export(nn.Linear(3, 4).eval(), (X,)) is not None
        assert torch.onnx.export is wrapped
    assert not calls


def test_models_ask_whether_they_are_exported() -> None:
    asked = []

    class Asking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append((is_in_onnx_export(), torch.onnx.is_in_onnx_export(), onnxport.is_in_onnx_export()))
            return x + 1

    with onnxport.as_torch_onnx():
        torch.onnx.export(Asking().eval(), (X,))
    assert set(asked) == {(True, True, True)}
    assert not torch.onnx.is_in_onnx_export()


def test_exportable_modules_of_torch() -> None:
    class Exportable(ExportableModule):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

        def example_arguments(self) -> Any:
            return (X,), None

        def input_names(self) -> Any:
            return ["image"]

        def output_names(self) -> Any:
            return ["more"]

        def dynamic_shapes(self) -> Any:
            return ({0: "batch"},)

    with onnxport.as_torch_onnx():
        programs: list[Any] = [Exportable().to_onnx(), torch.onnx.export(Exportable())]
    for program in programs:
        assert isinstance(program, onnxport.ONNXProgram)
        assert [value.name for value in program.model.graph.inputs] == ["image"]
        assert [value.name for value in program.model.graph.outputs] == ["more"]
        assert str(program.model.graph.inputs[0].shape) == "[batch,3]"


# transformers -------------------------------------------------------------------------------------------------------

TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 100}


def bert() -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertModel

    def inputs(batch: int, length: int) -> dict[str, Any]:
        tokens = torch.randint(0, 100, (batch, length))
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    return BertModel(BertConfig(**TEXT, max_position_embeddings=64)), inputs


def llama() -> tuple[nn.Module, Any]:
    from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**TEXT, num_key_value_heads=2, max_position_embeddings=64)
    model = LlamaForCausalLM(config).eval()

    def inputs(batch: int, length: int) -> dict[str, Any]:
        prompt, past = torch.randint(0, 100, (batch, length + 2)), DynamicCache(config=config)
        with torch.no_grad():
            past = model(prompt, past_key_values=past, use_cache=True).past_key_values
        tokens = torch.randint(0, 100, (batch, length))
        mask = torch.ones(batch, 2 * length + 2, dtype=torch.int64)
        return {"input_ids": tokens, "attention_mask": mask, "past_key_values": past}

    return model, inputs


def whisper() -> tuple[nn.Module, Any]:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    sizes = {f"{side}_{what}": value for side in ("encoder", "decoder")
             for what, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(
        d_model=32, vocab_size=100, num_mel_bins=16, max_source_positions=30, max_target_positions=40, **sizes, **tokens
    )

    def inputs(batch: int, length: int) -> dict[str, Any]:
        tokens = torch.randint(0, 100, (batch, length))
        return {"input_features": torch.randn(batch, 16, 60), "decoder_input_ids": tokens}

    return WhisperForConditionalGeneration(config), inputs


def vit() -> tuple[nn.Module, Any]:
    from transformers import ViTConfig, ViTModel

    config = {name: TEXT[name] for name in TEXT if name != "vocab_size"}
    model = ViTModel(ViTConfig(**config, image_size=32, patch_size=8))
    return model, lambda batch, _length: {"pixel_values": torch.randn(batch, 3, 32, 32)}


def resnet() -> tuple[nn.Module, Any]:
    from transformers import ResNetConfig, ResNetModel

    model = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
    return model, lambda batch, length: {"pixel_values": torch.randn(batch, 3, 8 * length, 8 * length)}


def tensors(value: Any) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves(tuple(value.values()))
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("make", [bert, llama, whisper, vit, resnet], ids=lambda make: make.__name__)
def test_the_exporter_of_transformers(make: Any, dynamic: bool, tmp_path: Path) -> None:
    """Its patches, its fixes of the graph, its translation table and its changes of the result are all in action."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    torch.manual_seed(0)
    model, inputs = make()
    model.eval()
    example = inputs(2, 4)
    with onnxport.as_torch_onnx():
        exported = OnnxExporter().export(model, copy.deepcopy(example), config=OnnxConfig(dynamic=dynamic))
    assert exported.program.producer_name == "onnxport"
    onnx.checker.check_model(onnxport.ONNXProgram(exported.program).model_proto, full_check=True)
    for given in [example, *([inputs(3, 5)] if dynamic else [])]:
        with torch.no_grad():
            expected = tensors(model(**copy.deepcopy(given)))
        actual = tensors(exported(**copy.deepcopy(given)))
        assert len(actual) == len(expected)
        for got, want in zip(actual, expected):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    exported.save_pretrained(tmp_path)
    assert {"model.onnx", "model.onnx.data"} <= {path.name for path in tmp_path.iterdir()}


def test_the_fusions_of_transformers() -> None:
    """Its fusions look for what torch's exporter writes; they must leave a graph of onnxport's correct."""
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    model, inputs = bert()
    model.eval()
    example = inputs(2, 4)
    with onnxport.as_torch_onnx():
        exported = OnnxExporter().export(model, dict(example), config=OnnxConfig(ort_fusions="cpu"))
    with torch.no_grad():
        torch.testing.assert_close(tensors(exported(**example)), tensors(model(**example)), rtol=1e-4, atol=1e-5)

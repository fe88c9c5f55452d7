"""LoRA adapters of a package: two of different layers and ranks change places in one session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxport
import onnxruntime
import pytest
import torch

pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import onnxport_transformers  # noqa: E402
from onnxport_transformers import Generation  # noqa: E402
from transformers_subjects import decoder  # noqa: E402

IDS = torch.randint(3, 64, (2, 6), generator=torch.Generator().manual_seed(0))
_SETTINGS: dict[str, dict[str, Any]] = {
    "french": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "german": {
        "r": 1,
        "lora_alpha": 2,
        "target_modules": ["q_proj", "down_proj"],
        "use_rslora": True,
        "rank_pattern": {"down_proj": 3},
        "alpha_pattern": {"layers.1.mlp.down_proj": 5},
    },
}


@pytest.fixture(scope="module")
def model() -> Any:
    """A decoder with two adapters."""
    torch.manual_seed(0)
    first, second = (peft.LoraConfig(**settings) for settings in _SETTINGS.values())
    made = peft.get_peft_model(decoder("Llama"), first, adapter_name="french")
    made.add_adapter("german", second)
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


@pytest.fixture(scope="module")
def expected(model: Any) -> dict[str | None, torch.Tensor]:
    """The logits with each adapter, and with none."""
    found: dict[str | None, torch.Tensor] = {}
    with torch.no_grad():
        for name in _SETTINGS:
            model.set_adapter(name)
            found[name] = model(input_ids=IDS).logits
        with model.disable_adapter():
            found[None] = model(input_ids=IDS).logits
    return found


def _assert_swapped(package: Any, expected: dict[str | None, torch.Tensor]) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns of each default
    session = onnxruntime.InferenceSession(package.files["model"], options)
    batch, length = IDS.shape
    feeds = {
        "input_ids": IDS.numpy(),
        "attention_mask": np.ones((batch, length), np.int64),
        "position_ids": np.tile(np.arange(length), (batch, 1)),
    }
    for value in session.get_inputs():
        if value.name.startswith("past"):
            feeds[value.name] = np.zeros((batch, value.shape[1], 0, value.shape[3]), np.float32)
    assert {value.name for value in session.get_inputs()} == feeds.keys(), "adapters need not be given"
    for name in (None, "french", "german", "french", None):
        run = onnxruntime.RunOptions()
        if name is not None:
            adapter = onnxruntime.LoraAdapter()
            adapter.Load(str(package.adapters[name]))
            run.add_active_adapter(adapter)
        logits = session.run(["logits"], feeds, run)[0]
        np.testing.assert_allclose(logits, expected[name], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(expected["french"], expected[None], atol=1e-2)
    assert not torch.allclose(expected["french"], expected["german"], atol=1e-2)


def test_a_model_of_peft(model: Any, expected: dict[str | None, torch.Tensor], tmp_path: Path) -> None:
    package = onnxport_transformers.export_model(model, tmp_path, genai=True)
    assert sorted(path.name for path in package.adapters.values()) == ["french.onnx_adapter", "german.onnx_adapter"]
    _assert_swapped(package, expected)
    model.set_adapter("french")
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, expected["french"]), "the model has its adapters again"
    with model.disable_adapter():
        result = onnxport.verify(package.files["model"], model.get_base_model(), kind=Generation(4, (3,)))
    assert all(comparison.passed for comparison in result.comparisons), result.failures()


def test_folders_of_adapters(model: Any, expected: dict[str | None, torch.Tensor], tmp_path: Path) -> None:
    """Weights of the base model stay on disk until they are written."""
    decoder("Llama").save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapters")
    adapters = {name: tmp_path / "adapters" / name for name in _SETTINGS}
    package = onnxport_transformers.export_folder(tmp_path / "base", tmp_path / "package", adapters=adapters)
    _assert_swapped(package, expected)


def test_adapters_have_the_type_of_the_file(
    model: Any, expected: dict[str | None, torch.Tensor], tmp_path: Path
) -> None:
    decoder("Llama").save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapters")
    package = onnxport_transformers.export_folder(
        tmp_path / "base", tmp_path / "package", dtype="float16", adapters={"french": tmp_path / "adapters" / "french"}
    )
    session = onnxruntime.InferenceSession(package.files["model"])
    batch, length = IDS.shape
    feeds = {
        "input_ids": IDS.numpy(),
        "attention_mask": np.ones((batch, length), np.int64),
        "position_ids": np.tile(np.arange(length), (batch, 1)),
    }
    for value in session.get_inputs():
        if value.name.startswith("past"):
            feeds[value.name] = np.zeros((batch, value.shape[1], 0, value.shape[3]), np.float16)
    adapter, run = onnxruntime.LoraAdapter(), onnxruntime.RunOptions()
    adapter.Load(str(package.adapters["french"]))
    run.add_active_adapter(adapter)
    logits = session.run(["logits"], feeds, run)[0]
    assert logits.dtype == np.float16
    np.testing.assert_allclose(logits.astype(np.float32), expected["french"], rtol=2e-2, atol=2e-2)


def test_adapters_of_genai(model: Any, tmp_path: Path) -> None:
    og = pytest.importorskip("onnxruntime_genai")
    package = onnxport_transformers.export_model(model, tmp_path, genai=True)
    loaded = og.Model(str(package.folder))
    adapters = og.Adapters(loaded)
    for name, path in package.adapters.items():
        adapters.load(str(path), name)
    prompt = IDS[0].tolist()
    for name in (None, "german", "french"):
        params = og.GeneratorParams(loaded)
        params.set_search_options(max_length=len(prompt) + 8, do_sample=False)
        generator = og.Generator(loaded, params)
        if name is not None:
            generator.set_active_adapter(adapters, name)
            model.set_adapter(name)
        generator.append_tokens(np.array([prompt], dtype=np.int32))
        ids = list(prompt)
        while not generator.is_done():
            generator.generate_next_token()
            with torch.no_grad():
                if name is None:
                    with model.disable_adapter():
                        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                else:
                    ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        found = [int(token) for token in generator.get_sequence(0)]
        assert found == ids[: len(found)] and len(found) > len(prompt)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "lora_only"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_what_is_no_pair_of_matrices_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    made = peft.get_peft_model(decoder("Llama"), peft.LoraConfig(target_modules=["q_proj"], **settings))
    with pytest.raises(onnxport.InputError, match=message):
        onnxport_transformers.export_model(made.eval(), tmp_path / "package")
    made.save_pretrained(tmp_path / "adapter")
    decoder("Llama").save_pretrained(tmp_path / "base")
    with pytest.raises(onnxport.InputError, match=message):
        adapters = {"a": tmp_path / "adapter"}
        onnxport_transformers.export_folder(tmp_path / "base", tmp_path / "package", adapters=adapters)


def test_adapters_that_do_not_fit(tmp_path: Path) -> None:
    made = peft.get_peft_model(decoder("Llama"), peft.LoraConfig(target_modules=["q_proj"]))
    made.save_pretrained(tmp_path / "adapter")
    decoder("GptOss").save_pretrained(tmp_path / "other")
    decoder("Llama", num_hidden_layers=1).save_pretrained(tmp_path / "shorter")
    with pytest.raises(onnxport.InputError, match="has no such layer"):
        adapters = {"a": tmp_path / "adapter"}
        onnxport_transformers.export_folder(tmp_path / "shorter", tmp_path / "package", adapters=adapters)
    with pytest.raises(onnxport.InputError, match=r"no adapter_config\.json"):
        onnxport_transformers.export_folder(tmp_path / "other", tmp_path / "package", adapters={"a": tmp_path})

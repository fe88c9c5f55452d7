"""Torch tensors as ONNX tensors, and the weights of exported programs."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnxport.emit.weights import CHUNK_BYTES, TorchTensor, initializers_of, write_all
from onnxport.errors import WeightError
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export.graph_signature import InputKind

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FLOAT8 = [torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz]
INTS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64]


def sample(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return (torch.arange(torch.Size(shape).numel()) % 7).reshape(shape).to(torch.float32).to(dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, *FLOAT8, *INTS, torch.bool], ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (4,), (2, 3, 4)], ids=str)
def test_values_of_every_dtype(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = sample(dtype, *shape)
    weight = TorchTensor(tensor, "w")
    assert weight.dtype == ir.tensor_adapters.from_torch_dtype(dtype)
    assert tuple(weight.shape) == shape
    assert weight.nbytes == tensor.numel() * tensor.element_size()
    assert weight.numpy().dtype == weight.dtype.numpy()
    np.testing.assert_array_equal(weight.numpy().astype(np.float64), tensor.to(torch.float64).numpy())
    again = np.frombuffer(weight.tobytes(), dtype=weight.dtype.numpy()).reshape(shape)
    np.testing.assert_array_equal(again.astype(np.float64), tensor.to(torch.float64).numpy())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_is_real_with_a_trailing_axis(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[1 + 2j, 3 - 4j], [5j, 6]], dtype=dtype)
    for view in (tensor, tensor.conj(), tensor.t(), torch.tensor(1 + 1j)):
        weight = TorchTensor(view)
        expected = torch.view_as_real(view.resolve_conj()).numpy()
        assert tuple(weight.shape) == (*view.shape, 2)
        np.testing.assert_array_equal(weight.numpy(), expected)
        assert weight.tobytes() == expected.tobytes()


def test_negative_bit_is_resolved() -> None:
    imaginary = torch.tensor([1 + 2j, 3 + 4j]).conj().imag
    assert imaginary.is_neg()
    np.testing.assert_array_equal(TorchTensor(imaginary).numpy(), [-2, -4])
    assert TorchTensor(imaginary).tobytes() == np.array([-2, -4], np.float32).tobytes()


@pytest.mark.skipif(not hasattr(torch, "float4_e2m1fn_x2"), reason="this torch has no float4")
def test_packed_float4() -> None:
    tensor = torch.tensor([[0x21, 0x43]], dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    weight = TorchTensor(tensor, "w")
    assert tuple(weight.shape) == (1, 4) and weight.nbytes == 2
    assert weight.tobytes() == b"\x21\x43"
    np.testing.assert_array_equal(weight.numpy().astype(np.float32), [[0.5, 1.0, 1.5, 2.0]])


def test_shares_memory() -> None:
    tensor = torch.zeros(3, 4, requires_grad=True)
    weight = TorchTensor(tensor)
    array = weight.numpy()
    with torch.no_grad():
        tensor[1, 2] = 5
    assert array[1, 2] == 5
    assert weight.raw is tensor
    assert TorchTensor(tensor.t()).numpy()[2, 1] == 5
    (chunk,) = weight.chunks()
    assert np.shares_memory(np.frombuffer(chunk, np.float32), array)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.t(),
        lambda t: t[:, ::2],
        lambda t: t.unsqueeze(1).expand(-1, 3, -1),
        lambda t: t.reshape(4, -1, 5).permute(2, 0, 1),
        lambda t: t[3],
        lambda t: t.flatten()[::3],
    ],
)
@pytest.mark.parametrize("limit", [1, 64, 1000, CHUNK_BYTES])
def test_strided_views_in_chunks(view, limit: int) -> None:
    tensor = view(torch.arange(20 * 40, dtype=torch.int32).reshape(20, 40))
    weight = TorchTensor(tensor)
    chunks = [bytes(chunk) for chunk in weight.chunks(limit)]
    assert b"".join(chunks) == tensor.contiguous().numpy().tobytes()
    assert max(map(len, chunks)) <= max(limit, 40 * 4)  # a contiguous row is not copied, so it may be longer


def test_a_single_element_of_any_stride() -> None:
    one = torch.arange(600, dtype=torch.float32)[5::256][:1].as_strided((1,), (256,))
    assert TorchTensor(one).tobytes() == one.numpy().tobytes()


def test_streaming_a_transposed_weight_takes_little_memory() -> None:
    weight = TorchTensor(torch.zeros(4096, 4096, dtype=torch.int8).t())
    peak = 0

    class Sink(io.RawIOBase):
        total = 0

        def write(self, data) -> int:
            nonlocal peak
            peak = max(peak, len(data))
            self.total += len(data)
            return len(data)

    sink = Sink()
    tracemalloc.start()
    weight.tofile(sink)
    assert tracemalloc.get_traced_memory()[1] < 2**20  # torch's own blocks are bounded by the chunk below
    tracemalloc.stop()
    assert sink.total == 4096 * 4096 and peak <= CHUNK_BYTES


def test_short_writes_are_continued() -> None:
    class Slow(io.BytesIO):
        def write(self, data) -> int:
            return super().write(bytes(data)[:3])

    slow = Slow()
    write_all(slow, b"0123456789")
    assert slow.getvalue() == b"0123456789"


def test_derived_tensors_follow_their_source() -> None:
    weight = TorchTensor(torch.arange(6.0).reshape(2, 3), "w")
    derived = weight.derive(torch.t, "w_t").derive(lambda t: t[1:], "part")
    assert derived.raw.data_ptr() == weight.raw[:, 1:].data_ptr()
    assert [leaf.source for leaf in derived.leaves()] == ["w"] and derived.source is None
    np.testing.assert_array_equal(derived.numpy(), [[1, 4], [2, 5]])
    other = derived.rebuilt({"w": torch.ones(2, 3), "v": torch.zeros(1)})
    assert other.name == "part" and tuple(other.shape) == (2, 2) and other.numpy().tolist() == [[1, 1], [1, 1]]
    assert derived.rebuilt({"v": torch.zeros(1)}) is derived


class OnDisk(TorchTensor):
    """A weight that is read anew whenever its data is asked for, and counts that."""

    reads = 0

    def __init__(self, data: torch.Tensor, name: str) -> None:
        super().__init__(data, name)
        self.data, self._layout, self._raw = data, self.layout, None

    @property
    def raw(self) -> torch.Tensor:
        OnDisk.reads += 1
        return self.data

    @property
    def has_data(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("function", "reads"),
    [
        (lambda w, b: w.t(), 0),
        (lambda w, b: w[1:].unsqueeze(0), 0),
        (lambda w, b: (w * b).to(torch.float64), 0),
        (lambda w, b: w[: int(b.max())], 2),  # its size depends on numbers
        (lambda w, b: torch.from_numpy(w.numpy() + 1), 2),
    ],
    ids=["turned", "a part", "computed", "a size of numbers", "numpy"],
)
def test_what_is_derived_of_a_weight_on_disk_is_not_read(function, reads: int) -> None:
    data, other = sample(torch.float32, 4, 3), torch.tensor([1.0, 2.0, 3.0])
    expected = function(data, other)
    OnDisk.reads = 0
    derived = OnDisk(data, "w").derive(function, "d", [OnDisk(other, "b")])
    assert OnDisk.reads == reads
    assert (derived.layout.shape, derived.layout.dtype) == (expected.shape, expected.dtype)
    chained = derived.derive(lambda d: d.flatten()[1:], "c")
    assert OnDisk.reads == reads
    assert torch.equal(derived.raw, expected) and torch.equal(chained.raw, expected.flatten()[1:])
    rebuilt = chained.rebuilt({"w": data + 1})
    assert torch.equal(rebuilt.raw, function(data + 1, other).flatten()[1:])


def test_combined_tensors_are_computed_when_read() -> None:
    calls = []

    def add(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return left + right

    weights = TorchTensor(torch.ones(3), "a"), TorchTensor(torch.empty(3, device="meta"), "b")
    combined = weights[0].combine(add, weights[1:], "sum")
    assert combined.dtype is ir.DataType.FLOAT and tuple(combined.shape) == (3,) and combined.nbytes == 12
    assert not combined.has_data and not calls
    with pytest.raises(WeightError, match="'b' has no data"):
        combined.tobytes()
    combined = combined.rebuilt({"b": torch.arange(3.0)})
    assert not calls and combined.name == "sum" and combined.has_data
    assert combined.numpy().tolist() == [1, 2, 3] and calls == [1]
    assert combined.derive(lambda t: t[1:]).rebuilt({"a": torch.zeros(3)}).numpy().tolist() == [1, 2]


def test_fake_and_meta_tensors_know_their_shape_only() -> None:
    with FakeTensorMode():
        fake = torch.empty(2, 3, dtype=torch.float16)
    for tensor in (fake, torch.empty(2, 3, dtype=torch.float16, device="meta")):
        weight = TorchTensor(tensor, "layer.weight")
        assert weight.dtype is ir.DataType.FLOAT16 and tuple(weight.shape) == (2, 3) and weight.nbytes == 12
        assert not weight.has_data and "layer.weight" in repr(weight)
        for read in (TorchTensor.numpy, TorchTensor.tobytes, lambda w: w.tofile(io.BytesIO()), np.asarray):
            with pytest.raises(WeightError, match=r"layer\.weight.*apply_weights"):
                read(weight)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_what_onnx_cannot_hold() -> None:
    with pytest.raises(WeightError, match="'w' is sparse_coo"):
        TorchTensor(torch.eye(3).to_sparse(), "w")
    with pytest.raises(WeightError, match="'w' is quantized"):
        TorchTensor(torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "w")


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 3)
        self.second = torch.nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.ones(3))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        self.plain = torch.full((3,), 2.0)
        self.table = torch.nn.Parameter(torch.ones(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x)) + self.kept + self.scratch + self.plain
        return x + torch.tensor([1.0, 2.0, 3.0]) + self.table[0]


def test_initializers_of_a_program() -> None:
    program = torch.export.export(Model(), (torch.ones(2, 3),))
    found = {item.name: item for item in initializers_of(program)}
    tied = found["first.weight"]
    assert tied.aliases == ["second.weight"] == list(tied.tensor.aliases)
    assert tied.placeholders == ["p_first_weight", "p_second_weight"]
    assert tied.kind is InputKind.PARAMETER
    assert "second.weight" not in found
    assert found["kept"].persistent is True
    assert found["scratch"].persistent is False and found["scratch"].kind is InputKind.BUFFER
    assert found["plain"].kind is InputKind.CONSTANT_TENSOR
    assert "lifted_tensor_0" in found
    assert all(item.tensor.name == item.name for item in found.values())
    assert found["table"].tensor.raw.data_ptr() == program.state_dict["table"].data_ptr()


def test_fake_weights_stay_tied_and_apart() -> None:
    with FakeTensorMode(), torch.device("cpu"):
        model = Model()
        program = torch.export.export(model, (torch.ones(2, 3),))
    names = [item.name for item in initializers_of(program)]
    assert "first.weight" in names and "second.weight" not in names
    assert {"first.bias", "second.bias", "kept", "scratch"} <= set(names)

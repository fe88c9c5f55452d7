"""Example inputs of a model, by what its forward takes, and which of their axes are free.

Most arguments are told by their names. Where a name has several layouts (spectrograms by frames or by bins, images or
frames of a video), each is tried on the model, and the first that it accepts is taken.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from onnxport import InputError

from onnxport_transformers.decoding import BATCH, SEQUENCE, Graph, fake_mode_of, parameters_of

_BATCH, _LENGTH = 2, 7
IMAGE = 64
"""Height and width of images where the configuration has none."""
SAMPLES = 4096
"""Of speech, in example inputs."""
FRAMES = 96
"""Of spectrograms, where a model takes any number."""
_MISMATCH = re.compile(
    r"(image|audio|video|speech)s? (?:features|tokens) .*?do(?:es)? not match.*", re.IGNORECASE | re.DOTALL
)
_NUMBERS = re.compile(r"tokens?:? *(\d+).*?features?:?[ a-z]*(\d+)", re.IGNORECASE | re.DOTALL)

Argument = tuple[torch.Tensor, dict[int, str]]
"""A tensor, and names of its free axes."""


@dataclass(frozen=True)
class Sizes:
    """Of example inputs.

    Attributes:
        batch: how many texts, images and sounds.
        length: how many tokens a text has, beside those that stand for images and sounds.
        longer: how much longer sounds and series are than in the first example, as a factor.
    """

    batch: int = _BATCH
    length: int = _LENGTH
    longer: int = 1


@dataclass
class Example:
    """What a model is called with.

    Attributes:
        kwargs: of its forward.
        shapes: names of free axes, by argument.
        tokens: how many tokens of a text stand for an image or a sound, by token.
    """

    kwargs: dict[str, torch.Tensor]
    shapes: dict[str, dict[int, str]]
    tokens: dict[int, int] = field(default_factory=dict)


def example(model: Any, task: str = "", *, decodes: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of a model's forward, and their dynamic shapes.

    Args:
        model: of transformers.
        task: in zero-shot classification, texts and images are of different number.
        decodes: whether tokens of a decoder are among them.

    Raises:
        InputError: what its forward takes is not known here.
    """
    first = examples(model, task, [Sizes()], decodes=decodes)[0]
    return first.kwargs, first.shapes


def examples(model: Any, task: str, sizes: list[Sizes], *, decodes: bool = True) -> list[Example]:
    """Example inputs in several sizes, all of the one layout that the model accepts; :func:`example` has the arguments.

    Raises:
        InputError: what its forward takes is not known here, or it accepts none of the layouts.
    """
    layouts = [each for each in _layouts(model) if decodes or "decoder_input_ids" not in each]
    if not layouts:
        takes = parameters_of(model)
        raise InputError(
            f"What {type(model).__name__}.forward takes ({', '.join(sorted(takes - {'self'}))}) is not known here. "
            "Export it with onnxport.export, which takes example inputs."
        )
    if (len(layouts) == 1 or not decodes) and not _counts_tokens(model):
        return [_Inputs(model, task, each, layouts[0]).example() for each in sizes]
    errors = []
    for layout in layouts:
        try:
            return [_accepted(_Inputs(model, task, each, layout)) for each in sizes]
        except Exception as error:  # whatever the code of a model raises for a layout that it doesn't take
            errors.append(error)
    lines = str(errors[0]).splitlines() or [""]
    raise InputError(
        f"{type(model).__name__} accepts none of the example inputs ({type(errors[0]).__name__}: {lines[0]}). Export "
        "it with onnxport.export, which takes example inputs."
    ) from errors[0]


def _accepted(inputs: _Inputs) -> Example:
    """The example, with as many tokens for images and sounds as the model asks for."""
    for _ in range(4):
        made = inputs.example()
        try:
            _run(inputs.model, made.kwargs)
            return made
        except (ValueError, RuntimeError) as error:
            if not inputs.has_more_tokens(str(error)):
                raise
    return made


def _run(model: Any, kwargs: Mapping[str, Any]) -> None:
    takes = parameters_of(model)
    fixed = {name: value for name, value in (("use_cache", False), ("return_dict", True)) if name in takes}
    given = {name: value.clone() for name, value in kwargs.items()}
    with torch.no_grad(), fake_mode_of(model):
        model(**given, **fixed)


def single(model: Any, task: str = "") -> Graph:
    """The graph of a model whose forward is called once."""
    first, second = examples(model, task, [Sizes(), Sizes(_BATCH + 1, _LENGTH + 4, 2)])
    takes = parameters_of(model)
    fixed = {name: value for name, value in (("use_cache", False), ("return_dict", True)) if name in takes}
    return Graph(
        model,
        {**first.kwargs, **fixed},
        {**first.shapes, **dict.fromkeys(fixed)},
        list(first.kwargs),
        [],
        [{**second.kwargs, **fixed}] if first.tokens or _GRIDS & first.kwargs.keys() else [],
    )


def _config_value(model: Any, *names: str) -> Any:
    """The first of these settings, in the configuration or in those of its parts."""
    for name in names:
        for config in _configs(model.config):
            value = getattr(config, name, None)
            if value is not None:
                return value
    return None


def _configs(config: Any) -> Iterator[Any]:
    yield config
    for part in vars(config).values():
        if hasattr(part, "model_type") and hasattr(part, "to_dict"):
            yield from _configs(part)


def _counts_tokens(model: Any) -> bool:
    """Whether images or sounds have places among the tokens."""
    return any(_token_of(model, kind) is not None for kind in ("image", "audio", "video"))


def _token_of(model: Any, kind: str) -> int | None:
    names = [f"{kind}_token_id", f"{kind}_token_index", f"{kind}_placeholder_token_id", f"{kind}_soft_token_id"]
    if kind == "image":
        names += ["im_patch_id", "img_token_id", "image_patch_id", "media_token_id"]
    return next((value for name in names if type(value := _config_value(model, name)) is int), None)


Layout = Mapping[str, str]
"""The chosen layout by argument, where a name has several."""
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "pixel_values": ("images", "frames", "tiles", "rows"),
    "input_values": ("samples", "channels", "frames", "bins"),
    "input_features": ("frames", "bins", "long bins", "samples", "wide frames"),
    "hidden_states": ("sequence", "map", "patches"),
    "encoder_hidden_states": ("sequence",),
    "query_embeds": ("sequence",),
}
_GRIDS = {"image_grid_thw", "grid_thw"}
_KNOWN_FIRST = ("input_ids", "pixel_values", "input_values", "input_features", "pixel_values_videos", "past_values")
_OPTIONAL = ("attention_mask", "token_type_ids", "bbox", "image_grid_thw", "mm_token_type_ids")
_SOUND_MASKS = ("input_features_mask", "feature_attention_mask")
_SIDE_BY_SIDE = ("input_values", "input_features", "pixel_values_videos")


def _layouts(model: Any) -> Iterator[Layout]:
    """All layouts of a model's arguments; none where an argument that it needs is unknown."""
    for names in _argument_sets(model):
        several = [name for name in names if name in _LAYOUTS]
        for chosen in itertools.product(*(_LAYOUTS[name] for name in several)):
            yield {**dict.fromkeys(names, ""), **dict(zip(several, chosen, strict=True))}


def _argument_sets(model: Any) -> Iterator[tuple[str, ...]]:
    """Which arguments a model is called with, the usual first."""
    parameters = inspect.signature(type(model).forward).parameters
    takes = set(parameters)
    required = [
        name
        for name, each in parameters.items()
        if each.default is each.empty and name != "self" and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    if any(name not in _BUILDERS for name in required):
        return
    names = [name for name in _KNOWN_FIRST if name in takes]
    reads_text = "input_ids" in names
    if reads_text:
        names = [name for name in names if name not in _SIDE_BY_SIDE or name in required]
    if not names and "inputs_embeds" in takes and "inputs_embeds" not in required:
        names.append("inputs_embeds")
    if not names and "flattened_patches" in takes:
        names.append("flattened_patches")
    names += [name for name in required if name not in names]
    for name in _OPTIONAL:
        if name in takes and name not in names and _is_useful(model, name, names):
            names.append(name)
    sounds = tuple(name for name in _SIDE_BY_SIDE if name in takes and name not in names)[:1]
    masks = tuple(name for name in _SOUND_MASKS if name in takes and name not in names)
    if reads_text and sounds and _token_of(model, "audio") is not None:
        yield (*names, *sounds, *masks)
        yield (*names, *sounds)
    if "mm_token_type_ids" in names and "position_ids" in takes and _has_axes(model):
        yield (*(name for name in names if name != "mm_token_type_ids"), "position_ids")
    yield tuple(names)
    if "decoder_input_ids" in takes and "decoder_input_ids" not in names:
        names.append("decoder_input_ids")
        yield tuple(names)
    if masks and "input_features" in names:
        yield (*names, *masks)
    if reads_text and "pixel_values" in names and "pixel_values" not in required:
        yield tuple(name for name in names if name not in ("pixel_values", "image_grid_thw", "mm_token_type_ids"))


def _has_axes(model: Any) -> bool:
    """Whether positions have three axes; a loop over the images computes them unless they are given."""
    return any(hasattr(each, "get_rope_index") for each in (model, getattr(model, "model", None)))


def _is_useful(model: Any, name: str, names: list[str]) -> bool:
    if name == "attention_mask":
        return "input_ids" in names
    if name == "token_type_ids":
        return "input_ids" in names and (_config_value(model, "type_vocab_size") or 0) > 1
    if name == "image_grid_thw":
        return "pixel_values" in names
    if name == "mm_token_type_ids":
        return "image_grid_thw" in names
    return True


class _Inputs:
    """The inputs of a model in one layout and size."""

    def __init__(self, model: Any, task: str, sizes: Sizes, layout: Layout) -> None:
        self.model, self.task, self.sizes, self.layout = model, task, sizes, layout
        self.tokens: dict[int, int] = {}
        self.length = sizes.length

    def example(self) -> Example:
        """The tensors."""
        kwargs, shapes = {}, {}
        self.length = self.sizes.length + sum(self.tokens.values())
        for name in self.layout:
            kwargs[name], shapes[name] = _BUILDERS[name](self, self.layout[name])
        return Example(kwargs, shapes, dict(self.tokens))

    def has_more_tokens(self, message: str) -> bool:
        """Whether a model's error tells how many tokens it wants for its images or sounds."""
        found = _MISMATCH.search(message)
        numbers = _NUMBERS.search(message)
        if found is None or numbers is None:
            return False
        token = _token_of(self.model, {"speech": "audio"}.get(found[1].lower(), found[1].lower()))
        wanted = int(numbers[2])
        if token is None:
            return False
        if token not in self.tokens:
            self.tokens[token] = -(-wanted // self.sizes.batch)
            return True
        if numbers[1] != numbers[2]:
            return False
        width = self.model.config.get_text_config().hidden_size  # the numbers count elements
        self.tokens[token] = max(1, self.tokens[token] // width)
        return self.tokens[token] * width > width

    def config(self, *names: str) -> Any:
        """The first of these settings."""
        return _config_value(self.model, *names)

    @property
    def width(self) -> int:
        """Of hidden states."""
        return int(self.config("hidden_size", "d_model", "embed_dim", "n_embd", "dim", "hidden_dim") or 64)

    def batch(self, kind: str) -> str:
        """The name of the batch: texts and images are of different number where each is compared with each."""
        return f"{kind}_{BATCH}" if self.task.startswith("zero-shot") and kind else BATCH


def _builder(*names: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        _BUILDERS.update(dict.fromkeys(names, function))
        return function

    return register


_BUILDERS: dict[str, Callable[[_Inputs, str], Argument]] = {}


@_builder("input_ids")
def _ids(inputs: _Inputs, layout: str) -> Argument:
    config = inputs.model.config.get_text_config()
    words = getattr(config, "vocab_size", None) or inputs.config("vocab_size") or 2
    words = words if isinstance(words, int) else min(words)
    first = min(5, words - 1)  # behind the special tokens, which some models look for
    special = {token for kind in ("image", "audio", "video") if (token := _token_of(inputs.model, kind)) is not None}
    last = min([words, *(token for token in special if token > first + 1)])
    ids = torch.randint(first, last, (inputs.sizes.batch, inputs.sizes.length))
    rows = [torch.full((inputs.sizes.batch, count), token) for token, count in inputs.tokens.items()]
    return torch.cat([ids[:, :1], *rows, ids[:, 1:]], 1), {0: inputs.batch("text"), 1: SEQUENCE}


@_builder("qformer_input_ids", "decoder_input_ids", "audio_input_ids")
def _other_ids(inputs: _Inputs, layout: str) -> Argument:
    words = inputs.config("vocab_size") or 30
    return torch.randint(min(5, words - 1), words, (inputs.sizes.batch, inputs.sizes.length - 2)), {
        0: inputs.batch("text"),
        1: "decoder_sequence_length",
    }


@_builder("attention_mask")
def _mask(inputs: _Inputs, layout: str) -> Argument:
    return torch.ones(inputs.sizes.batch, inputs.length, dtype=torch.int64), {0: inputs.batch("text"), 1: SEQUENCE}


@_builder("token_type_ids")
def _types(inputs: _Inputs, layout: str) -> Argument:
    return torch.zeros(inputs.sizes.batch, inputs.length, dtype=torch.int64), {0: inputs.batch("text"), 1: SEQUENCE}


@_builder("mm_token_type_ids")
def _kinds(inputs: _Inputs, layout: str) -> Argument:
    ids, axes = _ids(inputs, layout)
    kinds = torch.zeros_like(ids)
    image = _token_of(inputs.model, "image")
    if image in inputs.tokens:
        kinds[:, 1 : 1 + inputs.tokens[image]] = 1
    return kinds, axes


@_builder("position_ids")
def _positions(inputs: _Inputs, layout: str) -> Argument:
    numbers = torch.arange(inputs.length).expand(3, inputs.sizes.batch, -1)
    return numbers.clone(), {1: inputs.batch("text"), 2: SEQUENCE}


@_builder("bbox")
def _boxes(inputs: _Inputs, layout: str) -> Argument:
    corners = torch.randint(0, 100, (inputs.sizes.batch, inputs.length, 2, 2)).sort(2).values
    return corners.flatten(2), {0: BATCH, 1: SEQUENCE}


@_builder("inputs_embeds")
def _embeds(inputs: _Inputs, layout: str) -> Argument:
    return torch.randn(inputs.sizes.batch, inputs.length, inputs.width), {0: BATCH, 1: SEQUENCE}


@_builder("hidden_states", "encoder_hidden_states", "query_embeds")
def _hidden(inputs: _Inputs, layout: str) -> Argument:
    if layout == "map":
        return torch.randn(inputs.sizes.batch, inputs.width, 8, 8), {0: BATCH}
    if layout == "patches":
        return _patches(inputs)
    return torch.randn(inputs.sizes.batch, inputs.length, inputs.width), {0: BATCH, 1: SEQUENCE}


def _image_size(inputs: _Inputs) -> tuple[int, int]:
    size = inputs.config("image_size", "img_size", "input_size", "crop_size", "resolution") or IMAGE
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return int(height), int(width)


def _channels(inputs: _Inputs) -> int:
    channels = inputs.config("num_channels", "in_channels", "in_chans", "num_input_channels") or 3
    return int(channels) if isinstance(channels, int) else 3


def _is_packed(inputs: _Inputs) -> bool:
    """Whether images are rows of patches, whose counts are in another argument."""
    return bool(_GRIDS & inputs.layout.keys())


def _grids(inputs: _Inputs) -> list[list[int]]:
    """Frames, rows and columns of patches of images; neighbours have different sizes in the first example."""
    if inputs.sizes.longer > 1:
        return [[1, 8, 4]] * inputs.sizes.batch
    return [[1, 4, 4 + 4 * (image % 2)] for image in range(inputs.sizes.batch)]


def _patches(inputs: _Inputs) -> Argument:
    """Patches of all images, one behind the other."""
    edge = inputs.config("patch_size", "spatial_patch_size") or 14
    edge = edge if isinstance(edge, int) else edge[0]
    depth = inputs.config("temporal_patch_size") or 1
    count = sum(frames * rows * columns for frames, rows, columns in _grids(inputs))
    return torch.randn(count, _channels(inputs) * depth * edge * edge), {0: "patch_count"}


@_builder("pixel_values")
def _image(inputs: _Inputs, layout: str) -> Argument:
    height, width = _image_size(inputs)
    batch = {0: inputs.batch("image")}
    if _is_packed(inputs):
        return _patches(inputs)
    sizes = (inputs.sizes.batch, _channels(inputs), height, width)
    if layout == "images":
        return torch.randn(sizes), batch
    if layout == "frames":
        count = inputs.config("num_frames", "frames_per_clip") or 4
        return torch.randn(sizes[0], count, *sizes[1:]), batch
    if layout == "tiles":
        return torch.randn(sizes[0], 1, *sizes[1:]), batch
    edge = inputs.config("patch_size") or 14
    edge = edge if isinstance(edge, int) else edge[0]
    return torch.randn(sizes[0], 16, sizes[1] * edge * edge), batch


@_builder("pixel_values_videos")
def _video(inputs: _Inputs, layout: str) -> Argument:
    height, width = _image_size(inputs)
    count = inputs.config("num_frames", "frames_per_clip") or 4
    return torch.randn(inputs.sizes.batch, count, _channels(inputs), height, width), {0: BATCH}


@_builder("image_grid_thw", "grid_thw")
def _grid(inputs: _Inputs, layout: str) -> Argument:
    return torch.tensor(_grids(inputs)), {0: "image_count"}


@_builder("spatial_shapes")
def _spatial(inputs: _Inputs, layout: str) -> Argument:
    return torch.tensor([[4, 4]] * inputs.sizes.batch), {0: inputs.batch("image")}


@_builder("pixel_attention_mask")
def _pixel_mask(inputs: _Inputs, layout: str) -> Argument:
    return torch.ones(inputs.sizes.batch, 16, dtype=torch.int64), {0: inputs.batch("image")}


@_builder("image_sizes")
def _image_sizes(inputs: _Inputs, layout: str) -> Argument:
    return torch.tensor([_image_size(inputs)] * inputs.sizes.batch), {0: BATCH}


@_builder("bool_masked_pos")
def _masked(inputs: _Inputs, layout: str) -> Argument:
    height, width = _image_size(inputs)
    edge = inputs.config("patch_size") or 16
    count = (height // edge) * (width // edge) if isinstance(edge, int) else 16
    frames = inputs.config("num_frames")
    count *= (frames // (inputs.config("tubelet_size") or 1)) if frames else 1
    marked = torch.arange(count).expand(inputs.sizes.batch, count) % 2 == 0
    return marked.contiguous(), {0: BATCH}


@_builder("input_values")
def _sound(inputs: _Inputs, layout: str) -> Argument:
    count, batch = SAMPLES * inputs.sizes.longer, inputs.sizes.batch
    if layout == "samples":
        return torch.randn(batch, count), {0: BATCH, 1: "sample_count"}
    if layout == "channels":
        return torch.randn(batch, 1, count), {0: BATCH, 2: "sample_count"}
    frames, bins = inputs.config("max_length") or FRAMES, inputs.config("num_mel_bins") or 80
    return torch.randn(batch, *((frames, bins) if layout == "frames" else (bins, frames))), {0: BATCH}


@_builder("input_features")
def _spectrogram(inputs: _Inputs, layout: str) -> Argument:
    names = ("num_mel_bins", "input_feat_per_channel", "feature_size", "input_dim", "feature_projection_input_dim")
    bins = inputs.config(*names, "n_mels", "num_mel_filters") or 80
    positions = inputs.config("max_source_positions")
    batch, frames = inputs.sizes.batch, FRAMES * inputs.sizes.longer
    if inputs.model.config.model_type == "whisper" or (layout == "long bins" and positions):  # 30 seconds, by mel bins
        return torch.randn(batch, bins, 2 * positions), {0: BATCH}
    if layout == "samples":
        return torch.randn(batch, SAMPLES), {0: BATCH, 1: "sample_count"}
    if layout == "wide frames":
        return torch.randn(batch, 1, 1024, 64), {0: BATCH}
    if layout == "frames":
        return torch.randn(batch, frames, bins), {0: BATCH, 1: "frame_count"}
    return torch.randn(batch, bins, frames), {0: BATCH, 2: "frame_count"}


@_builder("input_features_mask", "feature_attention_mask")
def _features_mask(inputs: _Inputs, layout: str) -> Argument:
    features, axes = _spectrogram(inputs, inputs.layout.get("input_features", "frames"))
    axis = 1 if inputs.layout.get("input_features", "frames") == "frames" else features.dim() - 1
    free = {0: BATCH, **({1: axes[axis]} if axis in axes else {})}
    return torch.ones(inputs.sizes.batch, features.shape[axis], dtype=torch.int64), free


@_builder("flattened_patches")
def _flattened(inputs: _Inputs, layout: str) -> Argument:
    edge = inputs.config("patch_size") or 16
    places = torch.stack([torch.arange(16) // 4 + 1, torch.arange(16) % 4 + 1], 1).float()
    places = places.expand(inputs.sizes.batch, 16, 2)
    width = inputs.config("patch_embed_hidden_size") or edge * edge * 3
    return torch.cat([places, torch.randn(inputs.sizes.batch, 16, width)], 2), {0: BATCH}


def _series(inputs: _Inputs) -> int:
    lags = inputs.config("lags_sequence") or [0]
    length = inputs.config("context_length", "prediction_length", "history_len") or 64
    return int(length) + (max(lags) if "past_time_features" in inputs.layout else 0)


def _series_sizes(inputs: _Inputs) -> tuple[int, ...]:
    channels = inputs.config("num_input_channels", "input_size") or 1
    one = "past_time_features" in inputs.layout and channels == 1
    return (inputs.sizes.batch, _series(inputs)) + (() if one else (channels,))


@_builder("past_values")
def _past(inputs: _Inputs, layout: str) -> Argument:
    return torch.randn(_series_sizes(inputs)), {0: BATCH}


@_builder("past_observed_mask")
def _observed(inputs: _Inputs, layout: str) -> Argument:
    return torch.ones(_series_sizes(inputs)), {0: BATCH}


@_builder("past_time_features")
def _times(inputs: _Inputs, layout: str) -> Argument:
    return torch.randn(inputs.sizes.batch, _series(inputs), inputs.config("num_time_features") or 0), {0: BATCH}


@_builder("spectrogram")
def _mel(inputs: _Inputs, layout: str) -> Argument:
    bins = inputs.config("model_in_dim", "num_mel_bins") or 80
    return torch.randn(inputs.sizes.batch, 24 * inputs.sizes.longer, bins), {0: BATCH, 1: "frame_count"}

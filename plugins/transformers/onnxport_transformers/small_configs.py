"""Small configurations of any type: two layers, width 64, 128 words, and what has to fit these.

A configuration says its sizes by the names of its numbers, those of its parts too. Each name that means layers, widths,
heads, words, experts or positions gets one small number, the same everywhere: so widths that meet in a model are equal,
heads divide widths, and groups divide heads. Lists that have an entry for each layer are cut, indices of layers are
moved into the range, and tokens of special meaning get numbers among the words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

LAYERS, WIDTH, HEADS, GROUPS, HEAD, WORDS = 2, 64, 4, 2, 16, 128

_KEPT = re.compile(
    r".*(_id|_ids|_index|_token|_coefficient|_cost|_ratio|_mult|_factor|_stride|_padding|_dilation|_scale|_rate|_weight)"
    r"|num_channels|num_feat_extract_layers|n_layers_per.*|max_window_layers|max_depth|num_encoder_blocks|num_stages"
    r"|num_kv_shared_layers|num_nextn_predict_layers|first_k_dense_replace|.*mel_dim|.*num_mel_bins|query_dim"
    r"|num_position_embeddings|chunk_size_feed_forward|.*_repeats|type_vocab_size|num_lstm_layers|num_residual_layers"
)
"""Names that look like sizes of a model and are none, or whose sizes follow from others."""

_RULES: list[tuple[str, int]] = [
    (r"(.*_)?(n|num)_group", GROUPS),
    (r"(.*_)?topk_group", 1),
    (r"(.*_)?(n|num)_(shared_experts?|.*shared_experts)", 1),
    (r"(.*_)?(num_experts|num_local_experts|n_routed_experts|num_routed_experts|num_experts_total|n_experts)", 8),
    (
        r"(.*_)?(num_experts_per_tok(en)?|moe_k|moe_topk|top_k_experts|experts_per_token|moe_top_k|num_selected_experts)",
        2,
    ),
    (r"(.*_)?mamba_(n|num)_heads|mamba_heads", 8),
    (r"(.*_)?(head_dim|d_kv|head_size|kv_channels|dim_head|d_head|head_width)", HEAD),
    (r"qk_head_dim", 2 * HEAD),
    (r"(.*_)?(q_lora_rank|kv_lora_rank|o_lora_rank|time_step_rank|dt_rank)", 32),
    (
        r"(.*_)?(num_key_value_heads|num_kv_heads|n_kv_heads?|kv_heads|num_key_heads|n_head_kv|multi_query_group_num)",
        GROUPS,
    ),
    (r"(.*_)?(attention_heads|num_heads|n_heads?|heads|num_value_heads)", HEADS),
    (r"(.*_)?(state_size|d_state)", 16),
    (r"(.*_)?(n|num)_(.*_)?(layers?|blocks?)|(.*_)?(layers?|blocks|depth)", LAYERS),
    (r"vocab_size|.*_vocab_size|vocab_size_.*|additional_vocab_size", WORDS),
    (r"(.*_)?(codebook_size|num_embeddings|num_embeds)", 64),
    (r"(.*_)?moe_(.*_)?intermediate_size|(.*_)?shared_expert_intermediate_size|expert_(.*_)?size", 32),
    (
        r"(.*_)?(intermediate|ffn|mlp|inner|feed_?forward|d_ff|n_inner)(_.*)?_?(size|dim)?|(.*_)?(d_ff|n_inner|ff_dim)",
        96,
    ),
    (r"(.*_)?(hidden_size|hidden_dim|d_model|n_embd|n_embed|embed_dim|embedding_size|embedding_dim|emb_dim)", WIDTH),
    (r"(.*_)?(project(ion|or)?_(dim|size)|proj_dim|proj_size|model_dim|encoder_dim|decoder_dim)|dim|width", WIDTH),
    (r"hidden_size_per_layer_input|hidden_size_.*|patch_embed_dim|fpn_.*_size|.*_output_dim|.*_output_size", WIDTH),
    (r"lru_width|mamba_d_ssm|mamba_intermediate|d_inner", WIDTH),
    (r"(.*_)?(max_position_embeddings|n_positions|max_target_positions|max_source_positions|max_seq_len)", 128),
    (r"(.*_)?(block_size|context_length)", 64),
    (r"(.*_)?(sliding_window|attention_window|sliding_window_size|local_attention)", 32),
    (r"mamba_chunk_size|chunk_size", 8),
    (r"mm_tokens_per_image", 4),
    (r"num_queries|num_query_tokens|num_object_queries", 20),
]
_CORE = re.compile(
    r"num_hidden_layers|n_layers?|num_layers|encoder_layers|decoder_layers|depth|hidden_size|d_model|n_embd|embed_dim"
    r"|num_attention_heads|n_heads?|num_heads|(en|de)coder_attention_heads|num_key_value_heads|head_dim|vocab_size"
    r"|intermediate_size|(en|de)coder_ffn_dim"
)
_DEEP = re.compile(
    r"(num_)?hidden_layers|n_layers?|num_layers|(en|de)coder_layers|depth|vocab_size|num_(en|de)coder_layers"
)
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "encoder_layers")
_SPECIAL = re.compile(
    r".*_token_id|.*_token_index|(pad|bos|eos|sep|cls|mask|unk)_token_id|.*_token|.*_start_id|.*_end_id"
)
_FIRST = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
_INDICES = re.compile(r".*(indexes|indices|_idxs|_layers|layer_ids|_layer)")


class Shrinker:
    """One way to make configurations small.

    Args:
        chosen: the names whose numbers are changed.
        exceptions: other numbers than the rules have, by name.
    """

    def __init__(self, chosen: re.Pattern[str] | None = None, exceptions: Mapping[str, Any] | None = None) -> None:
        self._chosen, self._exceptions = chosen, exceptions or {}

    def overrides(self, config: Any) -> dict[str, Any]:
        """The arguments that make a small configuration of the same class, those of its parts included."""
        values = self._values(config)
        found: dict[str, Any] = {}
        for name, value in values.items():
            size = self._size(name)
            if type(value) is int and size is not None and value > size and not (size == LAYERS and "depths" in values):
                found[name] = size
        if "num_key_value_heads" in found and "kv_lora_rank" in values:
            found["num_key_value_heads"] = HEADS  # latent attention has keys for all heads
        if "num_heads" in found and "head_dim" in found and "expand" in values:
            found["num_heads"] = WIDTH * values["expand"] // HEAD
        count, before = self._layers(config, values, found)
        for name, value in values.items():
            if isinstance(value, (list, tuple)) and before is not None:
                changed = _list_of_layers(name, list(value), before, count, "depths" in values)
                if changed is not None:
                    found[name] = changed
        if isinstance(by_layer := values.get("per_layer_config"), dict) and before is not None:
            found["per_layer_config"] = self._by_layer(by_layer, values.get("layer_types"), found.get("layer_types"))
        if (image := _image_size(values)) is not None:
            found |= image
        if isinstance(rope := values.get("rope_parameters"), dict) and ("head_dim" in found or WIDTH in found.values()):
            found["rope_parameters"] = _rope(rope, HEAD)
        found |= _tokens(values, found)
        for name, part in vars(config).items():
            if _is_config(part):
                found[name] = {**part.to_diff_dict(), **self.overrides(part)}
        for name, value in self._exceptions.items():
            if name in values:
                found[name] = value(found.get(name, values[name])) if callable(value) else value
        return found

    def _values(self, config: Any) -> dict[str, Any]:
        names = {*config.to_dict(), *getattr(config, "attribute_map", {})}
        return {name: _value(config, name) for name in sorted(names) if not _is_computed(config, name)}

    def _size(self, name: str) -> int | None:
        if self._chosen is not None and not self._chosen.fullmatch(name):
            return None
        if _KEPT.fullmatch(name):
            return None
        return next((size for pattern, size in _RULES if re.fullmatch(pattern, name)), None)

    def _by_layer(self, settings: dict[Any, Any], before: Any, after: Any) -> dict[Any, Any]:
        """Settings of single layers, for the layers of the same kinds."""
        if not isinstance(before, (list, tuple)) or not isinstance(after, (list, tuple)):
            return {}
        found = {}
        for number, kind in enumerate(after):
            of_kind = next((s for key, s in settings.items() if before[int(key)] == kind), None)
            if of_kind is not None:
                sizes = {name: self._size(name) for name in of_kind}
                found[number] = {
                    n: v if sizes[n] is None or type(v) is not int else sizes[n] for n, v in of_kind.items()
                }
        return found

    def _layers(self, config: Any, values: dict[str, Any], found: dict[str, Any]) -> tuple[int, int | None]:
        """The new number of layers, with each kind of layer and as many as indices are read; and the old one."""
        name = next((name for name in _LAYER_COUNTS if type(values.get(name)) is int), None)
        if name is None:
            return LAYERS, None
        before = values[name]
        kinds = values.get("layer_types")
        count = max(LAYERS, len(dict.fromkeys(kinds)) if isinstance(kinds, (list, tuple)) else 0)
        for key, value in values.items():
            if _INDICES.fullmatch(key) and _are_indices(value, before) and "depths" not in values:
                count = max(count, min(len(value), 4))
        if name not in found:
            return before, before
        found[name] = count = min(count, before)
        return count, before


def _image_size(values: Mapping[str, Any]) -> dict[str, Any] | None:
    """The size of images of 4 by 4 patches, or of 64 pixels where patches are small or none."""
    patch = values.get("patch_size")
    edge = 4 * patch if type(patch) is int and patch >= 14 else 64
    changed: dict[str, Any] = {}
    for name in ("image_size", "img_size", "pretrain_image_size"):
        size = values.get(name)
        if type(size) is int and size > edge:
            changed[name] = edge
        elif isinstance(size, (list, tuple)) and size and min(size) > edge:
            changed[name] = [edge] * len(size)
    return changed or None


def _is_computed(config: Any, name: str) -> bool:
    """Whether a setting is a property that follows from others."""
    alias = getattr(config, "attribute_map", {}).get(name, name)
    found = [getattr(type(config), each, None) for each in (name, alias)]
    return any(isinstance(each, property) and each.fset is None for each in found)


def _value(config: Any, name: str) -> Any:
    """A setting; of those that vary over layers, what the configuration has for all."""
    try:
        return getattr(config, name)
    except Exception:  # such settings can't be read without a layer
        return config.to_dict().get(name)


def _is_config(part: Any) -> bool:
    return hasattr(part, "model_type") and hasattr(part, "to_diff_dict")


def _are_indices(value: Any, layers: int) -> bool:
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(type(item) is int and -layers <= item <= layers for item in value)
        and len(value) < layers
    )


def _list_of_layers(name: str, value: list[Any], before: int, count: int, has_stages: bool) -> list[Any] | None:
    """A list that goes with the layers, for fewer of them; None for another list."""
    if not value or count >= before:
        return None
    if len(value) == before:
        kinds = [item for i, item in enumerate(value) if item not in value[:i]]
        return (kinds + [value[-1]] * count)[:count] if len(kinds) <= count else value[:count]
    if len(value) == before + 1:
        return value[: count + 1]
    if name == "out_features" and not has_stages and all(re.fullmatch(r"stage\d+", str(item)) for item in value):
        stages = _list_of_layers("out_indices", [int(str(item)[5:]) for item in value], before, count, False)
        return None if stages is None else [f"stage{i}" for i in stages]
    if _INDICES.fullmatch(name) and not has_stages and _are_indices(value, before):
        if max(value) < count and min(value) >= -count:
            return None
        fewer = min(len(value), count)
        if name.startswith("out_"):  # 0 is what goes into the first layer
            return [(i + 1) * count // fewer for i in range(fewer)]
        return [max(0, (i + 1) * count // fewer - 1) for i in range(fewer)]
    return None


def _rope(rope: dict[str, Any], head: int) -> dict[str, Any]:
    """Settings of rotary positions for heads of another width: what is a list has an entry for each pair."""
    found = {}
    for name, value in rope.items():
        if isinstance(value, dict):
            value = _rope(value, head)
        elif name == "mrope_section" and isinstance(value, (list, tuple)):
            pairs = int(head * rope.get("partial_rotary_factor", 1)) // 2
            sections = [max(1, size * pairs // sum(value)) for size in value]
            value = [pairs - sum(sections[1:]), *sections[1:]]
        elif name in ("short_factor", "long_factor") and isinstance(value, (list, tuple)):
            value = list(value[: int(head * rope.get("partial_rotary_factor", 1)) // 2])
        found[name] = value
    return found


def _tokens(values: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers among the words for tokens of special meaning."""
    changed: dict[str, Any] = {}
    new: dict[int, int] = {}
    for name, value in values.items():
        if type(value) is int and _SPECIAL.fullmatch(name) and value >= WORDS:
            new.setdefault(value, _FIRST.get(name, WORDS - 1 - len(new)))
            changed[name] = new[value]
        elif name == "eos_token_id" and isinstance(value, (list, tuple)) and value and max(value) >= WORDS:
            changed[name] = 2
    return changed


def repair(message: str) -> dict[str, Any]:
    """The exceptions that serve a model that raised an error; none where the message doesn't tell."""
    found = re.search(r"split_sizes to sum exactly to (\d+).*split_sizes=\[([\d, ]+)\]", message)
    if found is not None and found[2].count(",") == 2:  # rotary positions of three axes
        pairs, sections = int(found[1]), [int(size) for size in found[2].split(",")]
        smaller = [max(1, size * pairs // sum(sections)) for size in sections]
        section = [pairs - sum(smaller[1:]), *smaller[1:]]
        return {"rope_parameters": lambda rope: {**(rope or {"rope_type": "default"}), "mrope_section": section}}
    return {}


def small_configs(config_class: Any, exceptions: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """Configurations of a class, the smallest first; those that can't be made are left out.

    Args:
        config_class: of transformers.
        exceptions: numbers that a type needs, by name.
    """
    default = config_class()
    for chosen in (None, _CORE, _DEEP):
        shrinker = Shrinker(chosen, exceptions)
        for make in (_by_arguments, _by_attributes):
            try:
                config = make(default, shrinker)
            except Exception:  # each class has its own demands on its numbers
                continue
            yield config
    yield default


def _by_arguments(default: Any, shrinker: Shrinker) -> Any:
    return type(default)(**shrinker.overrides(default))


def _by_attributes(default: Any, shrinker: Shrinker) -> Any:
    """The configuration itself, with other numbers: for classes that compute parts of themselves."""
    config = type(default)()
    _assign(config, shrinker.overrides(config))
    return config


def _assign(config: Any, overrides: Mapping[str, Any]) -> None:
    for name, value in overrides.items():
        part: Any = getattr(config, name, None)
        if _is_config(part):
            changed = {key: item for key, item in value.items() if key in part.to_dict() and key != "model_type"}
            _assign(part, changed)
        else:
            setattr(config, name, value)

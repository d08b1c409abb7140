"""Mapping of transformers' DINOv3 (Simeoni et al. 2025): rotary positions, registers, and keys without a bias."""

from typing import Any, Literal

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import ACTIVATIONS, Architecture, Entries, sides, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches
from mmjax.interop.transformers_dino import BACKBONE, scales
from mmjax.interop.transformers_parts import write_size

_OURS, _THEIRS = r"transformer/block_(\d+)/", r"layer.\1."
_BIASES: dict[tuple[bool, bool, bool], Literal["all", "query_value", "none"]] = {
  (True, True, True): "all",
  (True, False, True): "query_value",
  (False, False, False): "none",
}
"""Biases of queries, keys and values."""


def rules(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules of DINOv3ViTModel."""
  names = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "o_proj"))
  return joined(
    *(linear(f"{_OURS}attention/{ours}", f"{_THEIRS}attention.{theirs}") for ours, theirs in names),
    *(linear(f"{_OURS}mlp/{name}", f"{_THEIRS}mlp.{name}_proj") for name in ("gate", "up", "down")),
    norm(f"{_OURS}norm1", f"{_THEIRS}norm1"),
    norm(f"{_OURS}norm2", f"{_THEIRS}norm2"),
    scales(_OURS, _THEIRS),
    patches("^stem/projection", "embeddings.patch_embeddings", config.patch_size),
    norm("^transformer/norm", "norm"),
    (
      Rule("^class_token$", "embeddings.cls_token", "1 1 d -> 1 d"),
      Rule("^register_tokens$", "embeddings.register_tokens", "1 n d -> n d"),
    ),
  )


def read(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration. The tensors are not needed."""
  del entries
  fields.only("num_channels", 3, 3)
  fields.only("proj_bias", True, True)
  fields.only("mlp_bias", True, True)
  biases = tuple(fields.flag(f"{name}_bias", name != "key") for name in ("query", "key", "value"))
  if biases not in _BIASES:
    raise InteropError(
      f"{fields.where}: query_bias, key_bias and value_bias are {biases}; mmjax has {', '.join(map(str, _BIASES))}"
    )
  return ViTConfig(
    width=fields.integer("hidden_size", 384),
    mlp_dim=fields.integer("intermediate_size", 1536),
    depth=fields.integer("num_hidden_layers", 12),
    num_heads=fields.integer("num_attention_heads", 6),
    activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
    mlp_gated=fields.flag("use_gated_mlp", False),
    attention_bias=_BIASES[biases],
    layer_scale=fields.number("layerscale_value", 1.0),
    norm_epsilon=fields.number("layer_norm_eps", 1e-5),
    **sides(fields.square("image_size", 224), fields.square("patch_size", 16)),
    pool="cls",
    positions="none",
    rotary="centered",
    rotary_temperature=fields.number("rope_theta", 100.0),
    registers=fields.integer("num_register_tokens", 0, least=0),
  )


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single ViT."""
  if not isinstance(config, ViTConfig):
    raise wrong_kind("DINOv3ViTModel", "a vision transformer alone", config)
  biases = next(flags for flags, kind in _BIASES.items() if kind == config.attention_bias)
  return {
    "architectures": ["DINOv3ViTModel"],
    "model_type": "dinov3_vit",
    **write_size(config),
    **{f"{name}_bias": flag for name, flag in zip(("query", "key", "value"), biases, strict=True)},
    "use_gated_mlp": config.mlp_gated,
    "layerscale_value": 1.0 if config.layer_scale is None else config.layer_scale,
    "rope_theta": config.rotary_temperature,
    "num_register_tokens": config.registers,
    "image_size": config.image_size,
    "patch_size": config.patch_size,
    "num_channels": 3,
  }


def _blank(config: ViTConfig) -> dict[str, tuple[int, ...]]:
  shapes: dict[str, tuple[int, ...]] = {"embeddings.mask_token": (1, 1, config.width)}
  return shapes if config.registers else shapes | {"embeddings.register_tokens": (1, 0, config.width)}


# Training moves and stretches the positions at random.
_TRAINING = dict.fromkeys(
  ("drop_path_rate", "pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale"), "used only in training"
)
DINOV3 = Architecture(
  "DINOv3ViTModel",
  read,
  write,
  rules,
  (r"^embeddings\.mask_token$", r"^embeddings\.register_tokens$", r"inv_freq$"),
  ((r"^model\.layer\.", "layer."),),
  without_effect=BACKBONE | _TRAINING,
  blank=_blank,
)

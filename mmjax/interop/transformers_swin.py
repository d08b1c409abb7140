"""Mapping of transformers' SwinModel (Liu et al. 2021)."""

from typing import Any

from mmjax.encoders import SwinConfig
from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches
from mmjax.interop.transformers_dino import BACKBONE

_LARGEST = 2**12  # patches along a side times the side of a window; the mask of windows has the square of it


def rules(config: SwinConfig) -> tuple[Rule, ...]:
  """Mapping rules of SwinModel."""
  ours, theirs = r"stage_(\d+)_block_(\d+)/", r"encoder.layers.\1.blocks.\2."
  attention = f"{theirs}attention.self"
  return joined(
    (Rule(f"{ours}relative_bias/table$", f"{attention}.relative_position_bias_table"),),
    *(linear(f"{ours}block/attention/{name}", f"{attention}.{name}") for name in ("query", "key", "value")),
    linear(f"{ours}block/attention/out", f"{theirs}attention.output.dense"),
    norm(f"{ours}block/norm1", f"{theirs}layernorm_before"),
    norm(f"{ours}block/norm2", f"{theirs}layernorm_after"),
    linear(f"{ours}block/mlp/up", f"{theirs}intermediate.dense"),
    linear(f"{ours}block/mlp/down", f"{theirs}output.dense"),
    *(_merging(stage) for stage in range(1, len(config.layers))),
    patches("^stem/projection", "embeddings.patch_embeddings.projection", config.patch_size),
    norm("^stem_norm", "embeddings.norm"),
    norm("^norm", "layernorm"),
  )


def _merging(stage: int) -> tuple[Rule, ...]:
  """Rules of the merging of patches before a stage. In transformers, it is the end of the stage before."""
  ours, theirs = f"stage_{stage}_merge", f"encoder.layers.{stage - 1}.downsample"
  return joined(
    norm(f"{ours}/norm", f"{theirs}.norm"),
    (Rule(f"{ours}/projection/kernel$", f"{theirs}.reduction.weight", "o i -> i o"),),
  )


def read(fields: Fields, entries: Entries) -> SwinConfig:
  """Read the configuration of SwinModel. The tensors are not needed."""
  del entries
  for name, supported in (
    ("num_channels", 3),
    ("qkv_bias", True),
    ("use_absolute_embeddings", False),
    ("layer_norm_eps", 1e-5),  # another value would hold for only some of the norms
  ):
    fields.only(name, supported, supported)
  image_size, patch_size = fields.square("image_size", 224), fields.square("patch_size", 4)
  if image_size // patch_size * fields.integer("window_size", 7) > _LARGEST:
    raise fields.wrong("window_size", f"at most {_LARGEST} divided by the {image_size // patch_size} patches of a side")
  return SwinConfig(
    image_size=image_size,
    patch_size=patch_size,
    width=fields.integer("embed_dim", 96),
    layers=_per_stage(fields, "depths", [2, 2, 6, 2]),
    num_heads=_per_stage(fields, "num_heads", [3, 6, 12, 24]),
    window_size=fields.integer("window_size", 7),
    mlp_ratio=fields.number("mlp_ratio", 4.0),
    activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
  )


def _per_stage(fields: Fields, name: str, default: list[int]) -> tuple[int, ...]:
  found = fields.get(name)
  value = default if found is None else found
  if not isinstance(value, list) or not 0 < len(value) < 9 or not all(type(n) is int and 0 < n < 2**10 for n in value):
    raise fields.wrong(name, "a list of positive numbers, one for each stage")
  return tuple(value)


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single Swin transformer."""
  if not isinstance(config, SwinConfig):
    raise wrong_kind("SwinModel", "a Swin transformer alone", config)
  return {
    "architectures": ["SwinModel"],
    "model_type": "swin",
    "image_size": config.image_size,
    "patch_size": config.patch_size,
    "num_channels": 3,
    "embed_dim": config.width,
    "depths": list(config.layers),
    "num_heads": list(config.num_heads),
    "window_size": config.window_size,
    "mlp_ratio": config.mlp_ratio,
    "qkv_bias": True,
    "hidden_act": THEIR_ACTIVATIONS[config.activation],
    "layer_norm_eps": config.norm_epsilon,
    "use_absolute_embeddings": False,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }


_UNUSED = BACKBONE | {
  "drop_path_rate": "used only in training",
  "encoder_stride": "used only by the head of masked images",
  "num_layers": "follows from depths",
  "hidden_size": "follows from embed_dim and depths",
}
# Of a model with a head, only the encoder is read. The index was a tensor of older versions.
_IGNORED = (r"^classifier\.", r"^decoder\.", r"embeddings\.mask_token$", r"relative_position_index$")
SWIN = Architecture("SwinModel", read, write, rules, _IGNORED, ((r"^swin\.", ""),), without_effect=_UNUSED)

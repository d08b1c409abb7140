"""Mapping of transformers' DINOv2 (Oquab et al. 2024), without and with registers (Darcet et al. 2024)."""

from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, sides, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches

_OURS, _THEIRS = r"transformer/block_(\d+)/", r"encoder.layer.\1."
BACKBONE = dict.fromkeys(
  ("out_features", "out_indices", "stage_names", "apply_layernorm", "reshape_hidden_states"),
  "used only by a backbone of another model",
)
"""Fields of a backbone, and why they have no effect."""
_UNUSED = BACKBONE | {"drop_path_rate": "used only in training"}


def dinov2_rules(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules of Dinov2Model and Dinov2WithRegistersModel."""
  attention, positions = f"{_THEIRS}attention.attention", "embeddings.position_embeddings"
  return joined(
    *(linear(f"{_OURS}attention/{name}", f"{attention}.{name}") for name in ("query", "key", "value")),
    linear(f"{_OURS}attention/out", f"{_THEIRS}attention.output.dense"),
    _gated_mlp() if config.mlp_gated else _mlp(),
    norm(f"{_OURS}norm1", f"{_THEIRS}norm1"),
    norm(f"{_OURS}norm2", f"{_THEIRS}norm2"),
    scales(_OURS, _THEIRS),
    patches("^stem/projection", "embeddings.patch_embeddings.projection", config.patch_size),
    norm("^transformer/norm", "layernorm"),
    (
      Rule("^class_token$", "embeddings.cls_token", "1 1 d -> 1 d"),
      Rule("^register_tokens$", "embeddings.register_tokens", "1 n d -> n d"),
      Rule("^class_position$", positions, "1 n d -> n d", part=0, axis=1),
      Rule("^position_embedding$", positions, "1 n d -> n d", part=1, axis=1),
    ),
  )


def _mlp() -> tuple[Rule, ...]:
  return joined(linear(f"{_OURS}mlp/up", f"{_THEIRS}mlp.fc1"), linear(f"{_OURS}mlp/down", f"{_THEIRS}mlp.fc2"))


def _gated_mlp() -> tuple[Rule, ...]:
  """Rules of SwiGLU, whose gate and values are one tensor."""
  return joined(
    linear(f"{_OURS}mlp/gate", f"{_THEIRS}mlp.weights_in", 0),
    linear(f"{_OURS}mlp/up", f"{_THEIRS}mlp.weights_in", 1),
    linear(f"{_OURS}mlp/down", f"{_THEIRS}mlp.weights_out"),
  )


def scales(ours: str, theirs: str) -> tuple[Rule, ...]:
  """Rules of the layer scales of a block."""
  return tuple(Rule(f"{ours}scale{n}/scale$", f"{theirs}layer_scale{n}.lambda1") for n in (1, 2))


def read_dinov2(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration of Dinov2Model. The tensors are not needed."""
  del entries
  fields.flag("use_mask_token", True)
  return _read(fields, 0)


def read_registers(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration of Dinov2WithRegistersModel. The tensors are not needed."""
  del entries
  return _read(fields, fields.integer("num_register_tokens", 4))


def _read(fields: Fields, registers: int) -> ViTConfig:
  fields.only("num_channels", 3, 3)
  fields.only("qkv_bias", True, True)
  width, gated = fields.integer("hidden_size", 768), fields.flag("use_swiglu_ffn", False)
  activation = fields.choice("hidden_act", ACTIVATIONS, "gelu")
  return ViTConfig(
    width=width,
    depth=fields.integer("num_hidden_layers", 12),
    num_heads=fields.integer("num_attention_heads", 12),
    mlp_dim=_hidden(width, fields.number("mlp_ratio", 4), gated),
    mlp_gated=gated,
    activation="silu" if gated else activation,
    layer_scale=fields.number("layerscale_value", 1.0),
    norm_epsilon=fields.number("layer_norm_eps", 1e-6),
    **sides(fields.square("image_size", 224), fields.square("patch_size", 14)),
    pool="cls",
    class_position=True,
    registers=registers,
  )


def _hidden(width: int, ratio: float, gated: bool) -> int:
  """Hidden width of the MLP. With a gate it is two thirds, a multiple of 8."""
  hidden = int(width * ratio)
  return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def write_dinov2(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a ViT, or its MLP has no width that DINOv2 can have."""
  return _write(config, "Dinov2Model", "dinov2") | {"use_mask_token": False}


def write_registers(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError as `write_dinov2`."""
  fields = _write(config, "Dinov2WithRegistersModel", "dinov2_with_registers")
  return fields | {"num_register_tokens": config.registers}


def _write(config: Any, name: str, model_type: str) -> dict[str, Any]:
  if not isinstance(config, ViTConfig):
    raise wrong_kind(name, "a vision transformer alone", config)
  ratio = next((n for n in range(1, 17) if _hidden(config.width, n, config.mlp_gated) == config.hidden), None)
  if ratio is None:
    raise InteropError(
      f"{name} has no mlp_dim {config.hidden} at width {config.width}: its mlp_ratio is a whole number. "
      'Use format="mmjax" (--to mmjax), which holds every model'
    )
  return {
    "architectures": [name],
    "model_type": model_type,
    "hidden_size": config.width,
    "num_hidden_layers": config.depth,
    "num_attention_heads": config.num_heads,
    "mlp_ratio": ratio,
    "use_swiglu_ffn": config.mlp_gated,
    "hidden_act": THEIR_ACTIVATIONS[config.activation],
    "layer_norm_eps": config.norm_epsilon,
    "layerscale_value": 1.0 if config.layer_scale is None else config.layer_scale,
    "image_size": config.image_size,
    "patch_size": config.patch_size,
    "num_channels": 3,
    "qkv_bias": True,
  }


# The vector in place of a masked patch is used only in pretraining.
_MASK = (r"^embeddings\.mask_token$",)
DINOV2 = Architecture(
  "Dinov2Model", read_dinov2, write_dinov2, dinov2_rules, _MASK, ((r"^dinov2\.", ""),), without_effect=_UNUSED
)
DINOV2_REGISTERS = Architecture(
  "Dinov2WithRegistersModel",
  read_registers,
  write_registers,
  dinov2_rules,
  _MASK,
  ((r"^dinov2_with_registers\.", ""),),
  without_effect=_UNUSED,
  blank=lambda config: {"embeddings.mask_token": (1, config.width)},
  resampling="antialiased",
)

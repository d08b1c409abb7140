"""Mapping of transformers' ConvNextModel (Liu et al. 2022) and ConvNextV2Model (Woo et al. 2023)."""

from typing import Any

from mmjax.encoders import ConvNeXtConfig
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, convolution, joined, linear, norm, patches
from mmjax.interop.transformers_dino import BACKBONE


def rules(config: ConvNeXtConfig) -> tuple[Rule, ...]:
  """Mapping rules of both models."""
  stage = (r"stage_(\d)_", r"encoder.stages.\1.")
  block = (rf"{stage[0]}block_(\d+)/", rf"{stage[1]}layers.\2.")
  return joined(
    convolution(f"{block[0]}depthwise", f"{block[1]}dwconv"),
    norm(f"{block[0]}norm", f"{block[1]}layernorm"),
    linear(f"{block[0]}mlp/up", f"{block[1]}pwconv1"),
    linear(f"{block[0]}mlp/down", f"{block[1]}pwconv2"),
    (
      Rule(f"{block[0]}scale/scale$", f"{block[1]}layer_scale_parameter"),
      Rule(f"{block[0]}mlp/response_norm/scale$", f"{block[1]}grn.weight", "1 1 1 d -> d"),
      Rule(f"{block[0]}mlp/response_norm/bias$", f"{block[1]}grn.bias", "1 1 1 d -> d"),
    ),
    norm(f"{stage[0]}norm", f"{stage[1]}downsampling_layer.0"),
    patches(f"{stage[0]}downsample/projection", f"{stage[1]}downsampling_layer.1", 2),
    patches("stem/projection", "embeddings.patch_embeddings", config.patch_size),
    norm("stem_norm", "embeddings.layernorm"),
    norm("^norm", "layernorm"),
  )


def read(fields: Fields, entries: Entries) -> ConvNeXtConfig:
  """Read the configuration of ConvNextModel. The tensors are not needed."""
  del entries
  scale = fields.number("layer_scale_init_value", 1e-6)
  return ConvNeXtConfig(**_shared(fields), layer_scale=scale if scale > 0 else None)


def read_v2(fields: Fields, entries: Entries) -> ConvNeXtConfig:
  """Read the configuration of ConvNextV2Model. The tensors are not needed."""
  del entries
  return ConvNeXtConfig(**_shared(fields), layer_scale=None, response_norm=True)


def _shared(fields: Fields) -> dict[str, Any]:
  fields.only("num_channels", 3, 3)
  fields.only("num_stages", 4, 4)
  fields.only("hidden_act", "gelu", "gelu")
  depths, widths = _four(fields, "depths", [3, 3, 9, 3]), _four(fields, "hidden_sizes", [96, 192, 384, 768])
  if widths != [widths[0] * 2**stage for stage in range(4)]:
    raise fields.wrong("hidden_sizes", "four numbers, each twice the one before: mmjax has no other widths")
  return {
    "image_size": fields.square("image_size", 224),
    "patch_size": fields.square("patch_size", 4),
    "layers": tuple(depths),
    "width": widths[0],
    "pool_epsilon": fields.number("layer_norm_eps", 1e-12),
  }


def _four(fields: Fields, name: str, default: list[int]) -> list[int]:
  value = fields.get(name) or default
  if not isinstance(value, list) or len(value) != 4 or not all(type(n) is int and 0 < n < 2**16 for n in value):
    raise fields.wrong(name, "four numbers, one for each stage")
  return value


def write(config: Any) -> dict[str, Any]:
  """Write config.json of ConvNextModel. Raises InteropError if the model is not a single ConvNeXt."""
  fields = _written(config, "ConvNextModel", "convnext")
  return fields | {"layer_scale_init_value": config.layer_scale or 0.0}


def write_v2(config: Any) -> dict[str, Any]:
  """Write config.json of ConvNextV2Model. Raises InteropError if the model is not a single ConvNeXt."""
  return _written(config, "ConvNextV2Model", "convnextv2")


def _written(c: Any, name: str, kind: str) -> dict[str, Any]:
  if not isinstance(c, ConvNeXtConfig):
    raise wrong_kind(name, "a ConvNeXt alone", c)
  return {
    "architectures": [name],
    "model_type": kind,
    "image_size": c.image_size,
    "patch_size": c.patch_size,
    "num_channels": 3,
    "num_stages": 4,
    "depths": list(c.layers),
    "hidden_sizes": [c.width * 2**stage for stage in range(4)],
    "hidden_act": "gelu",
    "layer_norm_eps": c.norm_epsilon if c.pool_epsilon is None else c.pool_epsilon,
  }


_UNUSED = BACKBONE | {"drop_path_rate": "used only in training"}
_HEADS = (r"^classifier\.",)  # of a model with a head, only the encoder is read
CONVNEXT = Architecture("ConvNextModel", read, write, rules, _HEADS, ((r"^convnext\.", ""),), without_effect=_UNUSED)
CONVNEXT_V2 = Architecture(
  "ConvNextV2Model", read_v2, write_v2, rules, _HEADS, ((r"^convnextv2\.", ""),), without_effect=_UNUSED
)

"""Mapping of transformers' ResNetModel (He et al. 2016)."""

from typing import Any

from mmjax.encoders import ClassicResNetConfig
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, batch_norm, joined
from mmjax.interop.transformers_dino import BACKBONE

_DEPTHS, _WIDTHS = [3, 4, 6, 3], [256, 512, 1024, 2048]
_BLOCK = (r"stage_(\d+)_block_(\d+)/", r"encoder.stages.\1.layers.\2.")


def rules(config: ClassicResNetConfig) -> tuple[Rule, ...]:
  """Mapping rules of ResNetModel."""
  del config
  return joined(
    _normed("stem_conv", "stem_norm", "embedder.embedder"),
    _normed(f"{_BLOCK[0]}conv_skip", f"{_BLOCK[0]}norm_skip", f"{_BLOCK[1]}shortcut"),
    _normed(rf"{_BLOCK[0]}conv_(\d)", rf"{_BLOCK[0]}norm_(\d)", rf"{_BLOCK[1]}layer.\3"),
  )


def _normed(conv: str, norm: str, theirs: str) -> tuple[Rule, ...]:
  """Rules of a convolution without bias and of the batch norm after it."""
  kernel = Rule(f"{conv}/kernel$", f"{theirs}.convolution.weight", "o i y x -> y x i o")
  return kernel, *batch_norm(norm, f"{theirs}.normalization")


def read(fields: Fields, entries: Entries) -> ClassicResNetConfig:
  """Read the configuration of ResNetModel, whose images may have any size: 224 if the file names none."""
  del entries
  fields.only("num_channels", 3, 3)
  fields.only("hidden_act", "relu", "relu")
  layers, widths = _numbers(fields, "depths", _DEPTHS), _numbers(fields, "hidden_sizes", _WIDTHS)
  return ClassicResNetConfig(
    image_size=fields.square("image_size", 224),
    layers=layers,
    widths=widths,
    width=fields.integer("embedding_size", 64),
    block=fields.choice("layer_type", {"bottleneck": "bottleneck", "basic": "basic"}, "bottleneck"),
    first_stride=fields.flag("downsample_in_first_stage", False),
    early_stride=fields.flag("downsample_in_bottleneck", False),
    norm="frozen",
  )


def _numbers(fields: Fields, name: str, default: list[int]) -> tuple[int, ...]:
  value = fields.get(name) or default
  good = isinstance(value, list) and 0 < len(value) <= 16 and all(type(n) is int and 0 < n < 2**16 for n in value)
  if not good or sum(value) > 2**20:
    raise fields.wrong(name, "a list of numbers, one for each stage")
  return tuple(value)


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single ResNet."""
  if not isinstance(config, ClassicResNetConfig):
    raise wrong_kind("ResNetModel", "a ResNet of He et al. alone", config)
  return {
    "architectures": ["ResNetModel"],
    "model_type": "resnet",
    "image_size": config.image_size,
    "num_channels": 3,
    "hidden_act": "relu",
    "depths": list(config.layers),
    "hidden_sizes": list(config.widths),
    "embedding_size": config.width,
    "layer_type": config.block,
    "downsample_in_first_stage": config.first_stride,
    "downsample_in_bottleneck": config.early_stride,
  }


_IGNORED = (r"\.num_batches_tracked$", r"^classifier\.")  # a counter of training; of a model with a head, the encoder
RESNET = Architecture("ResNetModel", read, write, rules, _IGNORED, ((r"^resnet\.", ""),), without_effect=BACKBONE)

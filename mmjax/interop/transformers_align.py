"""Mapping of transformers' AlignModel (Jia et al. 2021): an EfficientNet without its last convolution, beside BERT."""

from typing import Any

from mmjax.encoders import EfficientNetConfig
from mmjax.encoders.efficientnet import STAGES
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, batch_norm, convolution, joined, linear, under
from mmjax.interop.transformers_single import HEADS, bert_rules, read_bert, write_bert
from mmjax.models import AlignConfig

_OURS, _THEIRS = r"^block_(\d+)/", r"encoder.blocks.\1."
_LAYERS = (
  ("expand", "expansion.expand_conv", "expansion.expand_bn"),
  ("depthwise", "depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
  ("project", "projection.project_conv", "projection.project_bn"),
)
# Fields of the stages, and their values at width 1. Others are not supported.
_FIXED: dict[str, Any] = {
  "kernel_sizes": [stage.kernel for stage in STAGES],
  "in_channels": [32, *(stage.width for stage in STAGES[:-1])],
  "out_channels": [stage.width for stage in STAGES],
  "strides": [stage.stride for stage in STAGES],
  "num_block_repeats": [stage.blocks for stage in STAGES],
  "expand_ratios": [stage.expansion for stage in STAGES],
  "squeeze_expansion_ratio": 0.25,
  "depth_divisor": 8,
  "num_channels": 3,
  "hidden_act": "swish",
  "batch_norm_eps": 0.001,
  "pooling_type": "mean",
}
_LARGEST = 2**12


def image_rules(config: EfficientNetConfig) -> tuple[Rule, ...]:
  """Mapping rules of AlignVisionModel."""
  del config
  squeeze = lambda ours, theirs: (
    Rule(f"{_OURS}squeeze/{ours}_projection/kernel$", f"{_THEIRS}squeeze_excite.{theirs}.weight", "o i 1 1 -> i o"),
    Rule(f"{_OURS}squeeze/{ours}_projection/bias$", f"{_THEIRS}squeeze_excite.{theirs}.bias"),
  )
  return joined(
    _layer("^stem", "embeddings.convolution", "embeddings.batchnorm"),
    *(_layer(f"{_OURS}{ours}", f"{_THEIRS}{conv}", f"{_THEIRS}{norm}") for ours, conv, norm in _LAYERS),
    squeeze("up", "reduce"),
    squeeze("down", "expand"),
  )


def _layer(ours: str, conv: str, norm: str) -> tuple[Rule, ...]:
  return joined(convolution(f"{ours}/conv", conv)[:1], batch_norm(f"{ours}/norm", norm))


def _rules(config: AlignConfig) -> tuple[Rule, ...]:
  image: Any = config.image
  return joined(
    under("image/", "vision_model.", image_rules(image)),
    under("text/", "text_model.", bert_rules(config.text)),
    linear("^text_projection", "text_projection"),
    (Rule("^temperature$", "temperature"),),
  )


def read_image(fields: Fields, entries: Entries) -> EfficientNetConfig:
  """Read the configuration of AlignVisionModel. The tensors are not needed."""
  del entries
  for name, value in _FIXED.items():
    fields.only(name, value, value)
  size, width, depth = (
    fields.square("image_size", 600),
    fields.number("width_coefficient", 2.0),
    fields.number("depth_coefficient", 3.1),
  )
  if size > _LARGEST or not 0 < width < 20 or not 0 < depth < 10:
    raise InteropError(
      f"{fields.where}: image_size is {size}, width_coefficient {width} and depth_coefficient {depth}, but they must "
      f"be at most {_LARGEST}, below 20 and below 10"
    )
  centered = fields.get("depthwise_padding") or []
  if not isinstance(centered, list) or not all(type(n) is int and 0 <= n < 1000 for n in centered):
    raise fields.wrong("depthwise_padding", "a list of the numbers of blocks")
  config = EfficientNetConfig(size, width, depth, norm="frozen", lite=False, head=False, centered=tuple(centered))
  if fields.integer("hidden_dim", 2560) < config.grid:
    raise fields.wrong("hidden_dim", f"at least {config.grid}, the side of the last map, of which the mean is taken")
  widths = [config.stem_width, *(stage.width for stage in config.stages)]
  if any(a == b for a, b, stage in zip(widths, widths[1:], STAGES, strict=False) if stage.stride == 1):
    raise fields.wrong("width_coefficient", "large enough for stages of different widths")
  return config


def write_image(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single EfficientNet."""
  if not isinstance(config, EfficientNetConfig):
    raise wrong_kind("AlignVisionModel", "an EfficientNet alone", config)
  return {
    "architectures": ["AlignVisionModel"],
    "model_type": "align_vision_model",
    "image_size": config.image_size,
    "width_coefficient": config.width,
    "depth_coefficient": config.depth,
    "depthwise_padding": list(config.centered),
    "hidden_dim": max(2560, config.grid),
    **_FIXED,
  }


def _read(fields: Fields, entries: Entries) -> AlignConfig:
  """Read the configuration of AlignModel. The tensors are not needed: its text's vector is the first token."""
  del entries
  image = read_image(fields.object("vision_config"), {})
  fields.only("projection_dim", image.pooled_width, 640)
  return AlignConfig(
    image=image,
    text=read_bert(fields.object("text_config"), {}),
    embed_dim=image.pooled_width,
    init_temperature=fields.number("temperature_init_value", 1.0),
  )


def _write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not an AlignConfig."""
  if not isinstance(config, AlignConfig):
    raise wrong_kind("AlignModel", "AlignConfig", config)
  return {
    "architectures": ["AlignModel"],
    "model_type": "align",
    "projection_dim": config.embed_dim,
    "temperature_init_value": config.init_temperature,
    "vision_config": write_image(config.image) | {"architectures": None},
    "text_config": write_bert(config.text) | {"model_type": "align_text_model", "architectures": None},
  }


_UNUSED = dict.fromkeys(("drop_connect_rate", "dropout_rate", "batch_norm_momentum"), "used only in training")
_UNUSED |= {"num_hidden_layers": "follows from num_block_repeats"}
_COUNTERS = (r"\.num_batches_tracked$",)
ALIGN = Architecture(
  "AlignModel", _read, _write, _rules, (*_COUNTERS, *HEADS, r"^text_model\.pooler\."), without_effect=_UNUSED
)
ALIGN_IMAGE = Architecture(
  "AlignVisionModel",
  read_image,
  write_image,
  image_rules,
  _COUNTERS,
  ((r"^vision_model\.", ""),),
  without_effect=_UNUSED,
)

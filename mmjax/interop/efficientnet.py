"""Mapping of EfficientNet-Lite as efficientnet_lite_pytorch has it: an image tower, and a layer for 1,000 classes."""

from typing import Any

from mmjax.encoders import EfficientNetConfig
from mmjax.interop.mapping import Rule, batch_norm, convolution, joined, linear
from mmjax.interop.preprocess import Preprocess
from mmjax.models import ClassifierConfig

IGNORED = (r"\.num_batches_tracked$",)
"""Expressions of tensors that are not read."""
LITE = tuple(
  ClassifierConfig(towers={"image": EfficientNetConfig(side, width, depth, norm="frozen")})
  for side, width, depth in ((224, 1.0, 1.0), (240, 1.0, 1.1), (260, 1.1, 1.2), (280, 1.2, 1.4), (300, 1.4, 1.8))
)
"""Lite0 to Lite4."""


def preprocess(config: ClassifierConfig) -> Preprocess:
  """The preprocessing that they were evaluated with: all but a margin of 16 pixels, and colours of about -1 to 1."""
  tower: Any = config.towers["image"]
  mean, std = 127 / 255, 128 / 255
  return Preprocess(tower.image_size, resize_to=tower.image_size + 32, mean=(mean,) * 3, std=(std,) * 3)


def _layer(ours: str, convolved: str, normed: str) -> tuple[Rule, ...]:
  return joined(convolution(f"^image/{ours}/conv", convolved)[:1], batch_norm(f"^image/{ours}/norm", normed))


RULES = joined(
  _layer("stem", "_conv_stem", "_bn0"),
  *(
    _layer(rf"block_(\d+)/{name}", rf"_blocks.\1._{name}_conv", rf"_blocks.\1._bn{number}")
    for number, name in enumerate(("expand", "depthwise", "project"))
  ),
  _layer("head", "_conv_head", "_bn1"),
  linear("^class_projection", "_fc"),
)
"""Mapping rules of a classifier with this tower."""

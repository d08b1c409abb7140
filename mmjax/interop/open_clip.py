"""Mapping of open_clip's CLIP: image tower, text tower and projections."""

import math
from typing import Any, Literal

from mmjax.encoders import ResNetConfig, TextConfig, ViTConfig
from mmjax.encoders.config import TowerConfig
from mmjax.interop import open_clip_hf, open_clip_timm
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, under
from mmjax.interop.open_clip_towers import BUFFERS, TEXT, image_rules, read_image, read_text, write_image, write_text
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection

_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias", "custom_text"}
_MODEL |= {"nonscalar_logit_scale"}


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of a model with open_clip's own text tower."""
  projection: tuple[Rule, ...] = (Rule("^text_projection/kernel$", "text_projection"),)
  if config.text_projection == "affine":
    projection = linear("^text_projection", "text_projection")
  return joined(_image_rules(config), under("text/", "", TEXT), projection, _LOGITS)


def hf_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of a model with a text tower of transformers."""
  assert isinstance(config.text, TextConfig)
  return joined(_image_rules(config), open_clip_hf.rules(config.text), _LOGITS)


_LOGITS = (Rule("^logit_scale$", "logit_scale"), Rule("^logit_bias$", "logit_bias"))


def _image_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the image tower and of its projection."""
  if open_clip_timm.is_timm(config):
    return open_clip_timm.rules(config)
  assert isinstance(config.image, ViTConfig | ResNetConfig)
  return joined(
    under("image/", "visual.", image_rules(config.image)),
    (Rule("^image_projection/kernel$", "visual.proj"),),
  )


def read(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration from model_cfg. The tensors are not needed."""
  del entries
  fields.known(_MODEL)
  fields.only("nonscalar_logit_scale", False, False)
  quick, embed_dim = fields.flag("quick_gelu", False), fields.integer("embed_dim")
  text, vision = fields.object("text_cfg"), fields.object("vision_cfg")
  image: TowerConfig
  projection: Projection
  if "timm_model_name" in vision:
    image, projection = open_clip_timm.read(vision, embed_dim)
  else:
    image = read_image(vision, quick, embed_dim)
    projection = "none" if isinstance(image, ResNetConfig) else "linear"
  hf = "hf_model_name" in text
  tower, text_projection = (
    open_clip_hf.read(text, embed_dim) if hf else (read_text(text, quick), _read_projection(text))
  )
  return TwoTowerConfig(
    image=image,
    text=tower,
    embed_dim=embed_dim,
    image_projection=projection,
    text_projection=text_projection,
    init_logit_scale=read_scale(fields),
    max_logit_scale=math.inf,
    init_logit_bias=fields.number("init_logit_bias") if "init_logit_bias" in fields else None,
  )


def read_scale(fields: Fields) -> float:
  """Read the initial logit scale. The file stores its logarithm, which is limited to 20."""
  return math.exp(min(20.0, fields.number("init_logit_scale", math.log(1 / 0.07))))


def _read_projection(text: Fields) -> Literal["linear", "affine", "none"]:
  if text.choice("proj_type", {"linear": False, "none": True}, "linear"):
    return "none"
  return "affine" if text.flag("proj_bias", False) else "linear"


def write(config: Any) -> dict[str, Any]:
  """Write model_cfg. Raises InteropError if the model is not a two-tower model."""
  if not isinstance(config, TwoTowerConfig):
    raise wrong_kind("open_clip's CLIP", "an image tower beside a text transformer", config)
  if not isinstance(config.image, ViTConfig | ResNetConfig) and not open_clip_timm.is_timm(config):
    known = "a ViT, a ResNet, a ConvNeXt, a FastViT or a Swin beside a text transformer"
    raise wrong_kind("open_clip's CLIP", known, config.image)
  if not isinstance(config.text, TextConfig):
    raise wrong_kind("open_clip's CLIP", "an image tower beside a text transformer", config.text)
  assert config.init_logit_scale is not None  # every two-tower model has one
  hf = open_clip_hf.is_hf(config.text)
  fields: dict[str, Any] = {
    "embed_dim": config.embed_dim,
    "quick_gelu": getattr(config.image if hf else config.text, "activation", None) == "quick_gelu",
    "vision_cfg": _write_image(config),
    "text_cfg": open_clip_hf.write(config.text, config.text_projection) if hf else _write_text(config),
    "init_logit_scale": math.log(config.init_logit_scale),
  }
  if config.init_logit_bias is not None:
    fields["init_logit_bias"] = config.init_logit_bias
  return fields


def _write_text(config: TwoTowerConfig) -> dict[str, Any]:
  assert isinstance(config.text, TextConfig)
  fields = write_text(config.text) | {"proj_bias": config.text_projection == "affine"}
  return fields | ({"proj_type": "none"} if config.text_projection == "none" else {})


def _write_image(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg."""
  if open_clip_timm.is_timm(config):
    return open_clip_timm.write(config)
  assert isinstance(config.image, ViTConfig | ResNetConfig)
  return write_image(config.image)


# With custom_text, the text tower is a separate module whose tensor names begin with "text.".
_CUSTOM_TEXT = ((r"^text\.", ""),)
OPEN_CLIP = Architecture("open_clip's CLIP", read, write, rules, BUFFERS, renamed=_CUSTOM_TEXT)
OPEN_CLIP_HF = Architecture(
  "open_clip's CLIP with a text tower of transformers", read, write, hf_rules, BUFFERS + open_clip_hf.BUFFERS
)

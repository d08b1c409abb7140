"""From a model's configuration to the model; what all of them are initialised with."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.models.albef import Albef, AlbefConfig
from mmjax.models.bert import Bert, BertConfig
from mmjax.models.blip import Blip, BlipConfig
from mmjax.models.blip_transformers import BlipCaptioner, BlipCaptionerConfig, BlipRetrieval, BlipRetrievalConfig
from mmjax.models.coca import Coca, CocaConfig
from mmjax.models.coca_open_clip import OpenClipCoca, OpenClipCocaConfig
from mmjax.models.flava import Flava, FlavaConfig
from mmjax.models.gpt import Gpt, GptConfig
from mmjax.models.two_tower import TwoTower, TwoTowerConfig
from mmjax.models.vilt import Vilt, ViltConfig
from mmjax.models.vqa import Vqa, VqaConfig, VqaWriter

ModelConfig = (
  TwoTowerConfig
  | GptConfig
  | BlipConfig
  | BlipRetrievalConfig
  | BlipCaptionerConfig
  | CocaConfig
  | OpenClipCocaConfig
  | FlavaConfig
  | ViltConfig
  | VqaConfig
  | AlbefConfig
  | BertConfig
)
"""The configurations a run may have. Each has `text` (a TextConfig: vocabulary and length follow the tokenizer) and,
where the model sees pictures, `image`."""


def build(config: ModelConfig) -> nn.Module:
  """The model of a configuration."""
  match config:
    case FlavaConfig():
      return Flava(config)
    case ViltConfig():
      return Vilt(config)
    case VqaConfig():
      return VqaWriter(config) if config.decoder_depth else Vqa(config)
    case TwoTowerConfig():
      return TwoTower(config)
    case GptConfig():
      return Gpt(config)
    case BlipConfig():
      return Blip(config)
    case BlipRetrievalConfig():
      return BlipRetrieval(config)
    case BlipCaptionerConfig():
      return BlipCaptioner(config)
    case CocaConfig():
      return Coca(config)
    case OpenClipCocaConfig():
      return OpenClipCoca(config)
    case AlbefConfig():
      return Albef(config)
    case BertConfig():
      return Bert(config)
  raise TypeError(f"{type(config).__name__} is no model's configuration")


def image_size(config: ModelConfig) -> int:
  """Side of the pictures a model takes, in pixels; 0 where it sees none."""
  image: Any = getattr(config, "image", None)
  return 0 if image is None else image.image_size


def init_params(model: nn.Module, key: jax.Array) -> Any:
  """Random parameters of a model."""
  config: Any = model
  return model.init(key, example_batch(config.config, 1))["params"]


def example_batch(config: ModelConfig, size: int) -> dict[str, Any]:
  """A batch of zeros of the right shapes: what every model's __call__ takes."""
  side = image_size(config)
  picture = {"image": jnp.zeros((size, side, side, 3), jnp.float32)} if side else {}
  text = {"text": jnp.zeros((size, config.text.max_length), jnp.int32)}
  return picture | text | {"index": jnp.zeros((size,), jnp.int32)}

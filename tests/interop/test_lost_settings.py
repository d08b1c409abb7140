"""A format that cannot hold a model names every setting in its words and ours, and options with which a model fits."""

import dataclasses
import re

import numpy as np
import pytest

from mmjax import interop
from mmjax.cli import Call, parse
from mmjax.encoders import ResNetConfig, TextConfig, ViTConfig
from mmjax.interop import InteropError
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.models import TwoTowerConfig
from tests import tiny

SMALL = dict(width=64, depth=1, num_heads=1)
IMAGE = dict(**SMALL, image_size=16, patch_size=8)
TEXT = dict(vocab_size=64, max_length=8, eos_id=63)
MODELS = {
  "the main job, and other blocks": TwoTowerConfig(
    image=ViTConfig(**IMAGE, stem="conv", pool="flat", mlp_gated=True, mlp_norm=True, attention_norm=True),
    text=TextConfig(**SMALL, **TEXT, causal=False, pool="mean", layer_scale=0.1, attention_bias="none"),
    embed_dim=32,
  ),
  "SigLIP": TwoTowerConfig(
    image=ViTConfig(**IMAGE, activation="gelu_tanh"),
    text=TextConfig(**SMALL, **TEXT, causal=False, pool="last", mask_padding=False, activation="gelu_tanh"),
    embed_dim=64,
    image_projection="none",
    text_projection="affine",
    init_logit_scale=10.0,
    init_logit_bias=-10.0,
  ),
  "CLIP": TwoTowerConfig(
    image=ViTConfig(**IMAGE, pool="cls", input_norm=True, class_position=True, stem_bias=False, norm_epsilon=1e-5),
    text=TextConfig(**SMALL, **TEXT, norm_epsilon=1e-5),
    embed_dim=32,
  ),
}


def saved(model, folder, format_):
  params = {name: np.zeros(shape, np.float32) for name, shape in flat_shapes(model).items()}
  return interop.save(model.build(), unflatten(params), folder, format=format_)


@pytest.mark.parametrize("format_", ["transformers", "siglip2", "open_clip", "openai", "big_vision"])
@pytest.mark.parametrize("case", MODELS)
def test_the_options_that_are_named_make_it_fit(case, format_, tmp_path):
  model, named = MODELS[case], []
  for _ in range(2):  # the settings that remain may differ from those of the nearest model: one more answer
    try:
      saved(model, tmp_path, format_)
      return
    except InteropError as error:
      said = str(error)
      if "timm, which has none of this size" in said:  # open_clip has SigLIP's image tower in timm's sizes alone
        assert (case, format_) == ("SigLIP", "open_clip")
        return
      assert "(--to mmjax)" in said and "has only" in said, said
      options = re.search(r"with these settings fits: (.*)\. Use format", said)[1].split()
      named += options
      experiment = dataclasses.replace(tiny.EXPERIMENT, model=model)
      model = parse("train", Call(experiment, options)).model
  saved(model, tmp_path, format_)


def test_a_setting_is_named_in_both_words(tmp_path):
  with pytest.raises(InteropError) as error:
    saved(MODELS["the main job, and other blocks"], tmp_path, "openai")
  said = str(error.value)
  assert "model.image.stem is 'conv' (patch_embedding, conv1), but OpenAI's CLIP has only 'patch'" in said
  assert "eos_id" not in said  # which only matters with another pooling


def test_a_resnet_is_refused_by_what_it_is(tmp_path):
  small = ResNetConfig(layers=(1, 1, 1, 1), width=16, num_heads=4, image_size=32, output_dim=32)
  model = TwoTowerConfig(image=small, text=MODELS["CLIP"].text, embed_dim=32)
  with pytest.raises(InteropError, match="big_vision supports only a vision transformer.*not ResNetConfig"):
    saved(model, tmp_path, "big_vision")
  with pytest.raises(InteropError, match=r"model.image_projection is 'linear' .* OpenAI's CLIP has only 'none'"):
    saved(model, tmp_path, "openai")

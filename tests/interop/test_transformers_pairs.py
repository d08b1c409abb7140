"""transformers' two-tower models with other text encoders than CLIP's, and ours, give the same embeddings both ways."""

import dataclasses
import json
import re

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mmjax import interop
from mmjax.interop.errors import InteropError
from mmjax.interop.inspection import beside
from tests.interop.references import (
  IMAGES,
  assert_close,
  assert_same_params,
  embed,
  randomize,
  reference,
)

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

from tests.interop.test_transformers import IDS, OTHER, TEXT, VISION  # noqa: E402

VISION = VISION | dict(num_hidden_layers=1)
TEXT = TEXT | dict(num_hidden_layers=1)
IMAGES = IMAGES[:, :16, :16]


def chinese_clip(text, vision):
  config = dict(text_config=TEXT | text, vision_config=VISION | vision, projection_dim=10)
  return transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig(**config))


def alt_clip(text, vision):
  text = TEXT | dict(pad_token_id=1, max_position_embeddings=11, type_vocab_size=1, project_dim=8) | text
  config = transformers.AltCLIPConfig(text_config=text, vision_config=VISION | vision, projection_dim=10)
  return transformers.AltCLIPModel(config)


def aimv2(text, vision):
  config = transformers.Aimv2Config(text_config=TEXT | text, vision_config=VISION | vision, projection_dim=10)
  return transformers.Aimv2Model(config)


def dual(text, vision):
  """`text` and `vision` name their classes."""
  configs = []
  for fields, size in ((vision, VISION), (text, TEXT)):
    kind = getattr(transformers, f"{fields['of']}Config")
    size = {name: value for name, value in size.items() if name in kind().to_dict() and fields["of"] != "Swin"}
    configs.append(kind(**size | {name: value for name, value in fields.items() if name != "of"}).to_dict())
  config = transformers.VisionTextDualEncoderConfig(vision_config=configs[0], text_config=configs[1], projection_dim=10)
  return transformers.VisionTextDualEncoderModel(config)


GATED = dict(rms_norm_eps=1e-3, hidden_act="gelu", qkv_bias=True, mlp_bias=True)
COUNTED = dict(pad_token_id=1, max_position_embeddings=11)
SWIN = dict(of="Swin", image_size=16, embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=2, patch_size=4)
CASES = {
  "aimv2": (aimv2, {}, {}),
  "aimv2, biases and epsilon": (aimv2, GATED, GATED | dict(patch_size=5)),
  "alt clip": (alt_clip, {}, {}),
  "alt clip, gelu and epsilon": (alt_clip, OTHER | dict(project_dim=12), OTHER | dict(patch_size=4)),
  "vit and bert": (dual, dict(of="Bert"), dict(of="ViT")),
  "clip and roberta": (dual, COUNTED | OTHER | dict(of="Roberta"), OTHER | dict(of="CLIPVision")),
  "dinov2 and mpnet": (dual, COUNTED | dict(of="MPNet"), dict(of="Dinov2")),
  "swin and clip": (dual, dict(of="CLIPText"), SWIN),
  "siglip and xlm-roberta": (dual, COUNTED | dict(of="XLMRoberta"), dict(of="SiglipVision")),
  "chinese clip": (chinese_clip, {}, {}),
  "chinese clip, gelu and epsilon": (chinese_clip, OTHER | dict(type_vocab_size=3), OTHER | dict(patch_size=5)),
}


def ids_for(model):
  """Texts padded with the padding of the model."""
  return np.where(IDS == 0, getattr(model.config.text_config, "pad_token_id", 0), np.maximum(IDS, 2)).astype(np.int32)


def embeddings(model):
  """Vectors of the images and of the texts. Attention is masked where the texts are padded."""
  ids, pixels = torch.tensor(ids_for(model)).long(), torch.tensor(IMAGES.transpose(0, 3, 1, 2))
  mask = (ids != getattr(model.config.text_config, "pad_token_id", 0)).long()
  with torch.no_grad():
    text = model.get_text_features(ids, attention_mask=mask).pooler_output
    return model.get_image_features(pixels).pooler_output, text


def tensors(folder):
  """All tensors, under the names of transformers 5, save those that no result reads."""
  found = load_file(folder / "model.safetensors")
  old, alt = r"^(vision|text)_model\.(vision|text)_model\.", "text_model.pre_LN.weight" in found
  names = {name: re.sub(old, r"\1_model.", name) for name in found if not name.endswith("mask_token")}
  if alt:
    names = {name: re.sub(r"^(vision_model\.encoder)\.layers\.", r"\1.layer.", new) for name, new in names.items()}
  return {new: found[name].tobytes() for name, new in names.items()}


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  make, text, vision = CASES[case]
  theirs = make(text, vision).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  model, params = found.model, found.params
  expected = embeddings(theirs)
  assert_close(embed(model, params, "encode_image", IMAGES), expected[0])
  assert_close(embed(model, params, "encode_text", ids_for(theirs)), expected[1])
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  scale = model.apply({"params": params}, method="logit_scale")
  np.testing.assert_allclose(scale, theirs.logit_scale.exp().item(), rtol=1e-6)

  interop.save(model, params, tmp_path / "ours")
  assert tensors(tmp_path / "theirs") == tensors(tmp_path / "ours")
  again, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  for mine, yours in zip(embeddings(again.eval()), expected, strict=True):
    torch.testing.assert_close(mine, yours, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], params)


def test_pictures_are_prepared_as_by_chinese_clips_processor(tmp_path):
  """By default, and by the file that the processor writes; and it reads ours."""
  theirs = transformers.ChineseCLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
  chinese_clip({}, {}).save_pretrained(tmp_path)
  picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 23, 3)).astype(np.uint8))
  expected = theirs(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
  for saved in (False, True):
    found = interop.load_pretrained(tmp_path)
    assert (np.abs(found.preprocess(picture) - expected) * np.array(found.preprocess.std)).max() <= 1.001 / 255
    if not saved:
      theirs.save_pretrained(tmp_path)
  interop.save(found.model, found.params, tmp_path / "ours", preprocess=found.preprocess)
  again = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours")
  assert type(again).__name__.startswith("ChineseCLIP")
  np.testing.assert_array_equal(again(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0), expected)


def test_towers_that_a_dual_encoder_cannot_hold_are_refused(tmp_path):
  """One that mmjax does not read, one without the pooler that the class reads, and one that it cannot write."""
  made = dual(dict(of="Bert"), dict(of="ViT"))
  made.save_pretrained(tmp_path)
  found, params = interop.load(tmp_path)
  unheld = dataclasses.replace(found.config.image, tanh_pool=False)
  config = dataclasses.replace(found.config, image=unheld)
  del params["image"]["tanh_pool"]
  with pytest.raises(InteropError, match="cannot hold the image tower of this model; it has those of CLIPVisionModel"):
    interop.save(config.build(), params, tmp_path / "ours")
  made.text_model.pooler = None
  made.save_pretrained(tmp_path)
  with pytest.raises(InteropError, match=r"no tensor 'text_model\.pooler\.dense"):
    interop.load(tmp_path)
  path = tmp_path / "config.json"
  record = json.loads(path.read_text())
  record["vision_config"]["model_type"] = "beit"
  path.write_text(json.dumps(record))
  with pytest.raises(InteropError, match="vision_config: model_type is 'beit', but must be one of 'clip_vision_model'"):
    interop.load(tmp_path)

"""transformers' two-tower models with other text encoders than CLIP's, and ours, give the same embeddings both ways."""

import numpy as np
import pytest
from PIL import Image

from mmjax import interop
from mmjax.interop.inspection import beside
from tests.interop.references import (
  IMAGES,
  assert_close,
  assert_same_params,
  assert_same_tensors,
  embed,
  randomize,
  reference,
)
from tests.interop.test_transformers import IDS, OTHER, TEXT, VISION

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

VISION = VISION | dict(num_hidden_layers=1)
TEXT = TEXT | dict(num_hidden_layers=1)
IMAGES = IMAGES[:, :16, :16]


def chinese_clip(text, vision):
  config = dict(text_config=TEXT | text, vision_config=VISION | vision, projection_dim=10)
  return transformers.ChineseCLIPModel(transformers.ChineseCLIPConfig(**config))


CASES = {
  "chinese clip": (chinese_clip, {}, {}),
  "chinese clip, gelu and epsilon": (chinese_clip, OTHER | dict(type_vocab_size=3), OTHER | dict(patch_size=5)),
}


def embeddings(model):
  """Vectors of the images and of the texts. Attention is masked where the texts are padded."""
  ids, pixels = torch.tensor(IDS).long(), torch.tensor(IMAGES.transpose(0, 3, 1, 2))
  mask = (ids != model.config.text_config.pad_token_id).long()
  with torch.no_grad():
    text = model.get_text_features(ids, attention_mask=mask).pooler_output
    return model.get_image_features(pixels).pooler_output, text


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
  assert_close(embed(model, params, "encode_text", IDS), expected[1])
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  scale = model.apply({"params": params}, method="logit_scale")
  np.testing.assert_allclose(scale, theirs.logit_scale.exp().item(), rtol=1e-6)

  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
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

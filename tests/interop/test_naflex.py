"""transformers' NaFlex towers and ours on images that are no squares: preprocessing, embeddings, both ways."""

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mmjax import interop
from mmjax.data.images.native import native_grid
from mmjax.encoders import NaFlexConfig, ViTConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.inspection import beside
from tests.interop.references import IMAGES, assert_close, assert_same_params, embed, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

from tests.interop.test_transformers import OTHER, TEXT, VISION, siglip2  # noqa: E402

SMALL = VISION | dict(num_hidden_layers=1)
RNG = np.random.default_rng(4)
PICTURES = [
  Image.fromarray(RNG.integers(0, 256, (*shape, 3)).astype(np.uint8)) for shape in ((20, 61), (70, 25), (9, 9))
]
# Name: fields of the image tower, and of the processor. More, and fewer, patches than there are position embeddings.
CASES = {
  "many": (SMALL, dict(patch_size=8, max_num_patches=11)),
  "few": (SMALL | OTHER | dict(patch_size=4), dict(patch_size=4, max_num_patches=7, image_std=[0.3, 0.4, 0.5])),
}


def prepared(folder):
  """What their processor makes of the pictures."""
  processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
  return processor(PICTURES, return_tensors="pt")


@pytest.mark.parametrize("case", CASES)
def test_pictures_of_any_shape(case, tmp_path):
  vision, processing = CASES[case]
  theirs = siglip2(dict(num_hidden_layers=1), vision).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  transformers.Siglip2ImageProcessor(**processing).save_pretrained(tmp_path / "theirs")
  inputs = prepared(tmp_path / "theirs")
  assert len({tuple(shape) for shape in inputs["spatial_shapes"].tolist()}) == 3
  found = interop.load_pretrained(tmp_path / "theirs")
  rows = np.stack([found.preprocess(picture) for picture in PICTURES])
  with torch.no_grad():
    expected = theirs.get_image_features(**inputs).pooler_output
  ours = embed(found.model, found.params, "encode_image", rows)
  assert_close(ours, expected)
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  assert np.abs(unit(ours) - unit(expected.numpy())).max() < 2e-5
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]

  interop.save(found.model, found.params, tmp_path / "ours", preprocess=found.preprocess)
  same = [load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours")]
  assert same[0].keys() == same[1].keys() and all((same[0][n] == same[1][n]).all() for n in same[0])
  for name, value in prepared(tmp_path / "ours").items():
    assert (value == inputs[name]).all()
  again = interop.load_pretrained(tmp_path / "ours")
  assert again.preprocess == found.preprocess
  assert_same_params(again.params, found.params)


def test_the_classifier_averages_the_patches_of_the_picture(tmp_path):
  config = transformers.Siglip2Config(vision_config={**SMALL, "num_patches": 4}, num_labels=3)
  theirs = transformers.Siglip2ForImageClassification(config).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path)
  transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=11).save_pretrained(tmp_path)
  found = interop.load_pretrained(tmp_path)
  rows = np.stack([found.preprocess(picture) for picture in PICTURES])
  with torch.no_grad():
    expected = theirs(**prepared(tmp_path)).logits
  ask = lambda module: module.class_logits(module.encode({"image": rows}))
  assert_close(np.asarray(found.model.apply({"params": found.params}, method=ask)), expected)


def test_grids_are_those_of_their_processor():
  from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

  for width, height, side, most in RNG.integers([1, 1, 1, 1], [900, 900, 20, 400], (300, 4)).tolist():
    expected = get_image_size_for_max_num_patches(height, width, side, most)
    assert native_grid(width, height, side, most) == tuple(length // side for length in expected)


def test_a_square_tower_is_written_as_siglip2_and_any_shape_not_as_siglip(tmp_path):
  model, params = square = interop_square(tmp_path)
  interop.save(model, params, tmp_path / "siglip2", "siglip2")
  again, same = interop.load(tmp_path / "siglip2")
  assert isinstance(again.config.image, NaFlexConfig)
  assert_same_params(same, params)
  images = IMAGES[:, :16, :16]
  np.testing.assert_allclose(
    embed(again, same, "encode_image", images), embed(*square, "encode_image", images), atol=2e-5
  )
  for form in ("openai", "big_vision", "open_clip"):
    with pytest.raises(InteropError, match="cannot hold|has none of this size"):
      interop.save(again, same, tmp_path / form, form)


def interop_square(folder):
  """A SigLIP with one square resolution."""
  config = transformers.SiglipConfig(text_config=TEXT | dict(projection_size=SMALL["hidden_size"]), vision_config=SMALL)
  theirs = transformers.SiglipModel(config)
  randomize(theirs)
  theirs.save_pretrained(folder / "siglip")
  model, params = interop.load(folder / "siglip")
  assert type(model.config.image) is ViTConfig
  return model, params


def test_a_number_of_patches_that_is_no_square_is_refused(tmp_path):
  config = transformers.Siglip2Config(vision_config={**SMALL, "num_patches": 4}, text_config=TEXT)
  theirs = transformers.Siglip2Model(config)
  theirs.config.vision_config.num_patches = 5
  theirs.save_pretrained(tmp_path)
  with pytest.raises(InteropError, match="num_patches is 5, but must be a square number"):
    interop.load(tmp_path)

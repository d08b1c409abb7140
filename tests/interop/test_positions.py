"""Positions for another image size, as transformers interpolates them and as open_clip does."""

import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.__main__ import main
from tests.interop.references import IMAGES, assert_same_params, embed, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402

from tests.interop.test_transformers import clip, image_features, siglip, siglip2  # noqa: E402


@pytest.mark.parametrize("size", [8, 24, 40])
@pytest.mark.parametrize("make", [clip, siglip, siglip2])
def test_transformers_filter(make, size, tmp_path):
  """From 4 x 4 patches of 4 pixels. The default is open_clip's filter, which differs."""
  theirs = make({}, dict(patch_size=4)).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path)
  images = IMAGES[:, :size, :size]
  if make is siglip2:
    expected = image_features(theirs, images)
  else:
    pixels = torch.tensor(images.transpose(0, 3, 1, 2))
    expected = theirs.get_image_features(pixels, interpolate_pos_encoding=True).pooler_output
  expected = expected.detach().numpy()
  ours = {
    name: embed(*interop.load(tmp_path, image_size=size, positions=name), "encode_image", images)
    for name in ("transformers", "open_clip")
  }
  np.testing.assert_allclose(ours["transformers"], expected, atol=2e-5)
  assert np.abs(ours["open_clip"] - expected).max() > 1e-4


def test_convert_takes_the_filter(tmp_path):
  theirs = clip({}, dict(patch_size=4))
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  command = ["convert", str(tmp_path / "theirs"), str(tmp_path / "ours"), "--to", "mmjax", "--image-size", "24"]
  assert main([*command, "--positions", "transformers"]) == 0
  _, expected = interop.load(tmp_path / "theirs", image_size=24, positions="transformers")
  assert_same_params(interop.load(tmp_path / "ours")[1], expected)

"""Images that are not opaque RGB give the pixels that the library gives which the folder names."""

import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.errors import DataError
from mmjax.interop.fields import Fields
from mmjax.interop.processor import from_open_clip, from_transformers
from tests.interop.references import reference

SIDE = 24
RNG = np.random.default_rng(0)
MODES = ("RGB", "L", "1", "P", "PA", "LA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "P, transparent")
SIXTEEN = Image.fromarray(np.linspace(0, 65535, 40 * 30).astype(np.uint16).reshape(30, 40))


def image(mode: str) -> Image.Image:
  """Colours at random, at most half transparent, larger than the model's images."""
  rgba = Image.fromarray(RNG.integers(0, 256, (30, 44, 4)).astype(np.uint8))
  if mode == "LAB":
    return Image.frombytes("LAB", rgba.size, rgba.convert("RGB").tobytes())
  if mode == "P, transparent":
    found = rgba.convert("RGB").quantize(16)
    found.info["transparency"] = 3
    return found
  if mode == "PA":
    return rgba.convert("P").convert("PA")
  return (rgba if mode in ("RGBA", "RGBa", "LA") else rgba.convert("RGB")).convert(mode)


def clip(version):
  fields = dict(image_processor_type="CLIPImageProcessor", size=SIDE, crop_size=SIDE)
  return from_transformers(Fields(fields, "preprocessor_config.json"), SIDE, "CLIPModel", version)


@pytest.mark.references
@pytest.mark.parametrize("mode", MODES)
def test_transformers(mode):
  """Version 5.21 and later put transparency on white. Earlier ones dropped it."""
  processor = reference("transformers").CLIPImageProcessorPil(size=SIDE, crop_size=SIDE)
  picture = image(mode)

  def theirs(picture):
    return processor(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0)

  for version in ("5.21.0", "5.23.0.dev0", "6.0", ""):
    np.testing.assert_allclose(clip(version)(picture), theirs(picture), atol=1e-5)
  for version in ("5.20.0", "4.57.3", "4.16.0.dev0"):
    np.testing.assert_allclose(clip(version)(picture), theirs(np.asarray(picture.convert("RGB"))), atol=1e-5)


@pytest.mark.references
@pytest.mark.parametrize("resize", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("mode", MODES)
def test_open_clip(mode, resize):
  """It resizes, pads and crops an image in its own mode, and converts it then."""
  transform = reference("open_clip").transform
  cfg = dict(size=SIDE, resize_mode=resize, interpolation="bicubic", fill_color=7)
  theirs = transform.image_transform_v2(transform.PreprocessCfg(**cfg), is_train=False)
  ours = from_open_clip(Fields(cfg, "preprocess_cfg"), SIDE)
  picture = image(mode)
  np.testing.assert_allclose(ours(picture), theirs(picture).numpy().transpose(1, 2, 0), atol=1e-5)
  if mode in ("RGB", "L", "1", "P", "LA", "RGBA"):  # and from a file
    file = io.BytesIO()
    picture.save(file, "PNG")
    expected = theirs(Image.open(file)).numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(ours(file.getvalue()), expected, atol=1e-5)


def test_sixteen_bits_are_scaled_and_not_clipped():
  """The references show such an image almost white: 99.6% of these pixels."""
  for ours in (clip("5.23.0"), clip("4.57.3"), from_open_clip(Fields({}, "cfg"), SIDE)):
    levels = (ours(SIXTEEN) * np.array(ours.std) + np.array(ours.mean))[..., 0]
    assert levels[0].mean() < 0.2 and levels[-1].mean() > 0.8 and np.all(np.diff(levels.mean(1)) > 0)


def test_without_conversion_only_rgb_and_grey_are_taken():
  """do_convert_rgb is false by default in ViTImageProcessor: it fails for four channels and takes HSV for RGB."""
  fields = dict(image_processor_type="ViTImageProcessor", size={"height": SIDE, "width": SIDE})
  vit = from_transformers(Fields(fields, "preprocessor_config.json"), SIDE, "ViTModel")
  for mode in MODES:
    if mode in ("RGB", "L"):
      assert vit(image(mode)).shape == (SIDE, SIDE, 3)
    else:
      with pytest.raises(DataError, match=r"do_convert_rgb.*image.convert\('RGB'\)"):
        vit(image(mode))
  asked = fields | dict(do_convert_rgb=True)
  assert from_transformers(Fields(asked, "f"), SIDE, "ViTModel")(image("RGBA")).shape == (SIDE, SIDE, 3)


def test_a_mode_that_cannot_be_converted_is_refused():
  with pytest.raises(DataError, match="mode 'La' cannot be converted to RGB"):
    clip("4.57.3")(image("RGBA").convert("LA").convert("La"))


def test_images_are_upright():
  """As transformers loads a path. A side that is turned is seen by the colours of the corners."""
  turned = Image.fromarray(np.zeros((40, 60, 3), np.uint8))
  turned.paste((255, 255, 255), (0, 0, 60, 20))
  exif = turned.getexif()
  exif[0x0112] = 6
  for form in ("JPEG", "WEBP", "PNG"):
    file = io.BytesIO()
    turned.save(file, form, exif=exif)
    pixels = clip("5.23.0")(file.getvalue())
    assert pixels[:, -1].mean() > 1 > 0 > pixels[:, 0].mean(), form

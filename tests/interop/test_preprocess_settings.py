"""Every field of preprocessor_config.json: the pixels are those of transformers, or the field is refused by name."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data.errors import DataError
from mmjax.data.images.native import PADDED
from mmjax.interop import InteropError, without_effect
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.preprocess import Preprocess, to_open_clip, to_transformers
from mmjax.interop.processor import from_open_clip, from_transformers
from tests.interop.references import reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
open_clip = reference("open_clip")

SIDE = 24
RNG = np.random.default_rng(0)
IMAGES = [
  Image.fromarray(RNG.integers(0, 256, (*shape, 3)).astype(np.uint8))
  for shape in ((30, 47), (47, 33), (40, 40), (24, 24), (13, 18))
]
SQUARE = dict(size={"height": SIDE, "width": SIDE})
SHORTEST = dict(size={"shortest_edge": SIDE})
CROPPED = SHORTEST | dict(do_center_crop=True, crop_size={"height": SIDE, "width": SIDE})
NAFLEX = dict(patch_size=8, max_num_patches=9)
BASE = {
  "CLIPImageProcessor": dict(size=SIDE, crop_size=SIDE),
  "SiglipImageProcessor": SQUARE,
  "ViTImageProcessor": SQUARE,
  "BlipImageProcessor": SQUARE,
  "Siglip2ImageProcessor": NAFLEX,
  "BitImageProcessor": SHORTEST | dict(size=30, crop_size=SIDE),
  "DeiTImageProcessor": dict(size=30, crop_size=SIDE),
  "ConvNextImageProcessor": SHORTEST,
}
# (class, fields, what is said: "" for equal pixels, otherwise a part of the error)
CASES = [
  *((name, fields, "") for name, fields in BASE.items()),
  # The numbers of old files.
  ("CLIPImageProcessor", dict(size=30, crop_size=SIDE), ""),
  ("CLIPImageProcessor", dict(size=20, crop_size=SIDE), ""),
  ("CLIPImageProcessor", dict(size=30, crop_size=[SIDE, SIDE]), ""),
  ("CLIPImageProcessor", dict(size=[30, 30], crop_size=SIDE), ""),
  ("CLIPImageProcessor", dict(size={"height": 30, "width": 30}, crop_size=SIDE), ""),
  ("CLIPImageProcessor", dict(size=30, crop_size=SIDE, default_to_square=True), ""),
  ("CLIPImageProcessor", dict(size=SIDE, crop_size=SIDE, default_to_square=None), ""),
  ("ViTImageProcessor", dict(size=SIDE), ""),
  ("BlipImageProcessor", dict(size=SIDE), ""),
  ("ViTImageProcessor", dict(size=SIDE, default_to_square=False), ""),
  ("SiglipImageProcessor", dict(size=SIDE), ""),
  ("ViTImageProcessor", dict(size=30, do_center_crop=True, crop_size=SIDE), ""),
  *((name, SHORTEST, "") for name in BASE if name.startswith(("S", "V", "Bl")) and name != "Siglip2ImageProcessor"),
  *((name, CROPPED, "") for name in ("SiglipImageProcessor", "ViTImageProcessor", "BlipImageProcessor")),
  *(("DINOv3ViTImageProcessor", SQUARE | dict(resample=n), f"resample is {n}, but must be 2") for n in (0, 1, 3, 4, 5)),
  ("ViltImageProcessor", CROPPED | dict(size_divisor=8), "do_center_crop is True, but must be false"),
  ("ViTImageProcessor", SQUARE | dict(image_mean=[0.5, float("nan"), 0.5]), "image_mean"),
  ("ViTImageProcessor", SQUARE | dict(image_std=float("inf")), "image_std"),
  # Steps that are left out.
  ("CLIPImageProcessor", SHORTEST | dict(do_center_crop=False), ""),
  ("CLIPImageProcessor", SHORTEST | dict(do_center_crop=False, crop_size=7), ""),
  ("CLIPImageProcessor", CROPPED | dict(do_resize=False), ""),
  ("CLIPImageProcessor", CROPPED | dict(do_resize=False, size=99), ""),
  ("SiglipImageProcessor", SQUARE | dict(do_resize=False), ""),
  ("SiglipImageProcessor", SQUARE | dict(do_rescale=False), ""),
  ("SiglipImageProcessor", SQUARE | dict(do_rescale=False, rescale_factor=0.5), ""),
  ("SiglipImageProcessor", SQUARE | dict(rescale_factor=1 / 127.5), ""),
  ("SiglipImageProcessor", SQUARE | dict(do_normalize=False), ""),
  ("SiglipImageProcessor", SQUARE | dict(do_normalize=False, image_std=[0, 0, 0]), ""),
  ("SiglipImageProcessor", SQUARE | dict(do_normalize=False, do_rescale=False), ""),
  ("Siglip2ImageProcessor", NAFLEX | dict(do_resize=False), "do_resize"),
  # Images of any shape: more or fewer patches than the square image has.
  ("Siglip2ImageProcessor", dict(patch_size=8, max_num_patches=16, resample=3), ""),
  ("Siglip2ImageProcessor", dict(patch_size=4, max_num_patches=3, image_mean=[0.1, 0.2, 0.3]), ""),
  # null is "off", whatever the default of the class.
  ("CLIPImageProcessor", SHORTEST | dict(do_center_crop=None, crop_size=7), ""),
  ("DeiTImageProcessor", SQUARE | dict(do_center_crop=None), ""),
  ("ViTImageProcessor", dict(size=SIDE, default_to_square=None), ""),
  *(
    (name, SQUARE | {step: None}, "")
    for name in ("SiglipImageProcessor", "ViTImageProcessor")
    for step in ("do_resize", "do_rescale", "do_normalize", "do_center_crop", "do_convert_rgb", "do_pad")
  ),
  ("CLIPImageProcessor", CROPPED | dict(do_convert_rgb=None), ""),
  # Colours.
  ("ViTImageProcessor", SQUARE | dict(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]), ""),
  ("ViTImageProcessor", SQUARE | dict(image_mean=0.25, image_std=2), ""),
  ("ViTImageProcessor", SQUARE | dict(image_std=[0.1, 0, 0.1]), "image_std"),
  ("ViTImageProcessor", SQUARE | dict(image_mean=[0.1, 0.2]), "image_mean"),
  *(("CLIPImageProcessor", CROPPED | dict(resample=n), "") for n in range(6)),
  ("SiglipImageProcessor", SQUARE | dict(resample=0), ""),
  ("SiglipImageProcessor", SQUARE | dict(resample=6), "resample"),
  ("SiglipImageProcessor", SQUARE | dict(resample="bicubic"), "resample"),
  # Padding: images of one size stay as they are.
  ("BlipImageProcessor", SQUARE | dict(do_pad=True, size_divisor=32), ""),
  ("BlipImageProcessor", SQUARE | dict(do_pad=True, pad_size={"height": 32, "width": 32}), "pad_size"),
  ("BlipImageProcessor", SQUARE | dict(do_pad=False, pad_size={"height": 32, "width": 32}), ""),
  # What no size of the model can come from.
  ("CLIPImageProcessor", dict(size=SIDE, crop_size=16), "crop_size"),
  ("CLIPImageProcessor", dict(size=SIDE), "crop_size"),
  ("CLIPImageProcessor", dict(size=SIDE, crop_size={"shortest_edge": SIDE}), "crop_size"),
  ("CLIPImageProcessor", dict(size=30, crop_size=SIDE, do_center_crop=False), "size"),
  ("SiglipImageProcessor", {}, "size"),
  ("SiglipImageProcessor", dict(size={"height": SIDE, "width": 30}), "size"),
  ("SiglipImageProcessor", dict(size={"shortest_edge": SIDE, "longest_edge": 40}), "size"),
  ("SiglipImageProcessor", dict(size={"longest_edge": SIDE}), "size"),
  ("SiglipImageProcessor", dict(size={"max_height": SIDE, "max_width": SIDE}), "size"),
  ("SiglipImageProcessor", dict(size="24"), "size"),
  ("CLIPImageProcessor", dict(size=SIDE, crop_size=SIDE, use_square_size=True), "use_square_size"),
  ("Siglip2ImageProcessor", dict(patch_size=9, max_num_patches=16), "patch_size is 9"),
  ("Siglip2ImageProcessor", dict(patch_size=8, max_num_patches=2**16 + 1), "max_num_patches"),
  # Other classes, code of one's own, fields that nobody knows.
  ("LevitImageProcessor", SQUARE, "image_processor_type"),
  # ConvNeXt's resizes by its own rule.
  ("ConvNextImageProcessor", SHORTEST | dict(crop_pct=0.8, image_std=[0.1, 0.2, 0.3]), ""),
  ("ConvNextImageProcessor", dict(size=SIDE, crop_pct=1.0, resample=2), ""),
  ("ConvNextImageProcessor", SHORTEST | dict(crop_pct=1.5), "crop_pct is 1.5"),
  ("ConvNextImageProcessor", SQUARE, "size"),
  ("ConvNextImageProcessor", dict(size={"shortest_edge": 30}), "size"),
  ("ConvNextImageProcessor", CROPPED, "do_center_crop"),
  ("SiglipImageProcessor", SQUARE | dict(do_flip_channel_order=True), "do_flip_channel_order"),
  ("SiglipImageProcessor", SQUARE | dict(auto_map={"AutoImageProcessor": "x.Y"}), "auto_map"),
  ("SiglipImageProcessor", SQUARE | dict(do_resize="yes"), "do_resize"),
]


def read(folder, name, fields, kind="SiglipModel"):
  (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name, **fields}))
  return from_transformers(read_json(folder / "preprocessor_config.json"), SIDE, kind, transformers.__version__)


def theirs(folder, image):
  """Pixels of the reference, or None where it gives another size than the model's.

  Its two forms resize with small differences and pad odd borders on other sides: Pillow's for the one, torchvision's,
  which is the default, for the other.
  """
  resizes = json.loads((folder / "preprocessor_config.json").read_text()).get("do_resize", True)
  processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil" if resizes else "torchvision")
  out = processor(image, return_tensors="np")
  pixels = np.asarray(out["pixel_values"][0], np.float32)
  if "spatial_shapes" in out:
    rows, columns = out["spatial_shapes"][0]
    places = np.full((len(pixels), 2), PADDED, np.float32)
    places[: rows * columns] = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    assert (out["pixel_attention_mask"][0] == (places[:, 0] >= 0)).all()
    return np.concatenate([pixels, places], axis=1)
  return pixels.transpose(1, 2, 0) if pixels.shape[-2:] == (SIDE, SIDE) else None


def assert_same_pixels(ours, folder):
  compared = 0
  for image in IMAGES:
    expected = theirs(folder, image)
    if expected is None:
      with pytest.raises(DataError, match="Crop or resize the image to a square first"):
        ours(image)
      continue
    difference = np.abs(ours(image) - expected)
    if ours.resize == "native":
      assert not difference[:, -2:].any()
      difference = difference[:, :-2].reshape(-1, 3)
    difference = difference * np.array(ours.std) / ours.scale
    assert difference.max() <= 1e-3, (image.size, difference.max())  # of the 255 levels
    compared += 1
  assert compared


@pytest.mark.parametrize(("name", "fields", "said"), CASES)
def test_equal_or_refused_by_name(name, fields, said, tmp_path):
  if said:
    with pytest.raises(InteropError, match=f"preprocessor_config.json.*{said}"):
      read(tmp_path, name, fields)
    return
  ours = read(tmp_path, name, fields)
  assert_same_pixels(ours, tmp_path)
  name = "CLIPImageProcessor" if name == "ConvNextImageProcessor" else name  # as `save` writes it
  written = Fields(to_transformers(ours, name), "written")
  assert from_transformers(written, SIDE, "", transformers.__version__) == ours


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(resize="none"), "do_resize"),
    (dict(resize_to=9), "a size before the crop"),
    (dict(crop=False), "a resizing without a crop"),
    (dict(scale=1.0), "rescale_factor"),
    (dict(interpolation="box"), "'box'"),
  ],
)
def test_what_open_clip_cannot_hold_is_named(changes, said):
  with pytest.raises(InteropError, match=f"open_clip's preprocess_cfg cannot hold .*{said}.*mmjax"):
    to_open_clip(dataclasses.replace(Preprocess(8), **changes))
  if said == "do_resize":
    with pytest.raises(InteropError, match="transformers' image processors cannot resize the longer side"):
      to_transformers(Preprocess(8, "longest"), "CLIPImageProcessor")


VALUES = {
  "data_format": "channels_first",
  "input_data_format": "channels_last",
  "return_tensors": "np",
  "device": "cpu",
}
VALUES |= {"processor_class": "CLIPProcessor", "model_input_names": ["pixel_values"], "disable_grouping": True}
VALUES |= {"_valid_processor_keys": ["images"], "transformers_version": "4.40.0", "_commit_hash": "0"}


def test_a_grey_level_of_open_clip_is_checked():
  with pytest.raises(InteropError, match="fill_color is 300, but must be a grey level from 0 to 255"):
    from_open_clip(Fields({"fill_color": 300}, "cfg"), 24)


@pytest.mark.parametrize("name", without_effect.PREPROCESSOR)
def test_a_field_without_effect_has_none(name, tmp_path):
  fields = CROPPED | {name: VALUES.get(name, 3)}
  assert_same_pixels(read(tmp_path, "CLIPImageProcessor", fields), tmp_path)


def test_convnext_squashes_large_images(tmp_path):
  transformers.ConvNextImageProcessor(size={"shortest_edge": 384}).save_pretrained(tmp_path)
  ours = from_transformers(read_json(tmp_path / "preprocessor_config.json"), 384, "ConvNextModel")
  theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
  expected = theirs(IMAGES[0], return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
  np.testing.assert_allclose(ours(IMAGES[0]), expected, atol=1e-5)

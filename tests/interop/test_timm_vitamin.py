"""open_clip's ViTamin: embeddings at reduced size both ways, and the tensors of every configuration that it ships."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmjax import interop
from mmjax.interop import open_clip, timm_vitamin
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Table
from mmjax.interop.shapes import flat_shapes
from tests.interop.open_clip_folders import written
from tests.interop.references import IMAGES, assert_close, embed, reference

pytestmark = pytest.mark.references
theirs_of = reference("open_clip")
import timm  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from timm.models.vitamin import VitCfg  # noqa: E402

SHIPPED = Path(theirs_of.__file__).parent / "model_configs"
TEXT = dict(context_length=9, vocab_size=50, width=12, heads=2, layers=2)
STEM = VitCfg(embed_dim=(8, 16, 24), depths=(2, 4, 1), stem_width=8)
SMALL = dict(img_size=48, embed_dim=24, depth=2, num_heads=2, embed_cfg=STEM)
OURS = dict(width=24, depth=2, num_heads=2, mlp_dim=48, stem_width=8)


@pytest.fixture
def reduced(monkeypatch):
  """timm's towers and ours with the same few small numbers."""
  create = timm.create_model
  monkeypatch.setattr(timm, "create_model", lambda name, **fields: create(name, **fields, **SMALL))
  small = {
    name: dataclasses.replace(timm_vitamin.TOWERS[name], **OURS, image_size=side) for name, side in CASES.items()
  }
  monkeypatch.setattr(timm_vitamin, "TOWERS", small)


CASES = {
  "vitamin_small_224": 48,
  "vitamin_xlarge_384": 32,  # without positions: open_clip ships it with images smaller than those of timm's tower
}


@pytest.mark.parametrize("name", CASES)
def test_embeddings_both_ways(name, reduced, tmp_path):
  side = CASES[name]
  vision = dict(timm_model_name=name, timm_model_pretrained=False, timm_pool="", timm_proj="linear", image_size=side)
  cfg = dict(vision_cfg=vision | dict(timm_drop=0.0, timm_drop_path=0.1), text_cfg=TEXT, custom_text=True)
  theirs, transform = written(tmp_path / "theirs", cfg)
  found = interop.load_pretrained(tmp_path / "theirs")
  images = IMAGES[:2, :side, :side]
  with torch.no_grad():
    expected = theirs.encode_image(torch.tensor(images.transpose(0, 3, 1, 2)))
  assert_close(embed(found.model, found.params, "encode_image", images), expected)
  photo = np.random.default_rng(0).integers(0, 256, (60, 70, 3)).astype(np.uint8)
  pixels = transform(Image.fromarray(photo)).numpy().transpose(1, 2, 0)
  np.testing.assert_allclose(found.preprocess(photo), pixels, atol=1e-6)
  interop.save(found.model, found.params, tmp_path / "ours", format="open_clip", preprocess=found.preprocess)
  tensors = [load_file(tmp_path / who / "open_clip_model.safetensors") for who in ("theirs", "ours")]
  first, second = ({name.removeprefix("text."): t.numpy().tobytes() for name, t in file.items()} for file in tensors)
  assert first == second


def read(name: str):
  return open_clip.read(Fields(json.loads((SHIPPED / f"{name}.json").read_text()), name), {})


@pytest.mark.parametrize("name", ["ViTamin-S-LTT", "ViTamin-B", "ViTamin-L2-336", "ViTamin-XL-384"])
def test_configurations_have_the_tensors_of_open_clip(name):
  fields, config = json.loads((SHIPPED / f"{name}.json").read_text()), read(name)
  ours = Table(open_clip.rules(config), flat_shapes(config)).their_shapes
  fields.pop("custom_text")
  with torch.device("meta"):
    theirs = theirs_of.CustomTextCLIP(**fields)
  assert ours == {name.removeprefix("text."): tuple(value.shape) for name, value in theirs.state_dict().items()}


def test_every_shipped_configuration_is_read():
  sides = {path.stem: json.loads(path.read_text())["vision_cfg"]["image_size"] for path in SHIPPED.glob("ViTamin*")}
  assert {name: read(name).image.image_size for name in sides} == sides and len(sides) == 15


def test_settings_that_mmjax_does_not_have_are_refused():
  fields = json.loads((SHIPPED / "ViTamin-B.json").read_text())
  for name, value, said in (
    ("timm_pool", "max", "timm_pool is 'max'"),
    ("timm_proj", "mlp", "timm_proj is 'mlp'"),
    ("image_size", 240, "image_size is 240"),
  ):
    vision = fields["vision_cfg"] | {name: value}
    with pytest.raises(InteropError, match=said):
      open_clip.read(Fields(fields | {"vision_cfg": vision}, "config"), {})

"""open_clip's EVA, EVA02 and PE: embeddings at reduced size both ways, and the tensors of what it ships."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmjax import interop
from mmjax.interop import open_clip, timm_eva
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Table
from mmjax.interop.shapes import flat_shapes
from mmjax.interop.without_effect import OPEN_CLIP_MODEL
from tests.interop.open_clip_folders import written
from tests.interop.references import IMAGES, assert_close, embed, reference

pytestmark = pytest.mark.references
theirs_of = reference("open_clip")
import timm  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

SHIPPED = Path(theirs_of.__file__).parent / "model_configs"
NAMES = sorted(path.stem for path in SHIPPED.glob("*.json") if path.stem.startswith(("EVA", "PE-")))
TEXT = dict(context_length=9, vocab_size=50, width=12, heads=2, layers=1)
SMALL = dict(img_size=24, patch_size=8, embed_dim=24, depth=2, num_heads=2, mlp_ratio=3.0)
OURS = dict(image_size=24, patch_size=8, width=24, depth=2, num_heads=2, mlp_dim=72)
CASES = {  # rotary positions of 3 x 3 patches are stretched to those of 16 x 16, 14 x 14 and 32 x 32
  "eva_giant_patch14_224": "token",
  "eva02_base_patch16_clip_224": "token",
  "eva02_enormous_patch14_clip_224": "token",
  "vit_pe_core_base_patch16_224": "map",
  "vit_pe_core_gigantic_patch14_448": "map",
}


def smaller(tower):
  return dataclasses.replace(tower, **OURS, map_mlp_dim=96 if tower.map_mlp_dim else None)


@pytest.fixture
def reduced(monkeypatch):
  """timm's towers and ours with the same few small numbers."""
  create = timm.create_model
  monkeypatch.setattr(timm, "create_model", lambda name, **fields: create(name, **fields, **SMALL))
  monkeypatch.setattr(timm_eva, "TOWERS", {name: smaller(timm_eva.TOWERS[name]) for name in CASES})


@pytest.mark.parametrize("name", CASES)
def test_embeddings_both_ways(name, reduced, tmp_path):
  vision = dict(timm_model_name=name, timm_model_pretrained=False, timm_pool=CASES[name], timm_proj=None, image_size=24)
  theirs, transform = written(tmp_path / "theirs", dict(vision_cfg=vision, text_cfg=TEXT, custom_text=True))
  found = interop.load_pretrained(tmp_path / "theirs")
  with torch.no_grad():
    expected = theirs.encode_image(torch.tensor(IMAGES[:, :24, :24].transpose(0, 3, 1, 2)))
  assert_close(embed(found.model, found.params, "encode_image", IMAGES[:, :24, :24]), expected)
  photo = np.random.default_rng(0).integers(0, 256, (60, 70, 3)).astype(np.uint8)
  pixels = transform(Image.fromarray(photo)).numpy().transpose(1, 2, 0)
  np.testing.assert_allclose(found.preprocess(photo), pixels, atol=1e-6)
  interop.save(found.model, found.params, tmp_path / "ours", format="open_clip", preprocess=found.preprocess)
  tensors = [load_file(tmp_path / who / "open_clip_model.safetensors") for who in ("theirs", "ours")]
  first, second = ({name.removeprefix("text."): t.numpy().tobytes() for name, t in file.items()} for file in tensors)
  assert first == second


@pytest.mark.parametrize("name", NAMES)
def test_configurations_have_the_tensors_of_open_clip(name, monkeypatch):
  fields = json.loads((SHIPPED / f"{name}.json").read_text())
  config = open_clip.read(Fields(fields, name), {})
  small = dataclasses.replace(
    config, **{t: dataclasses.replace(getattr(config, t), depth=1) for t in ("image", "text")}
  )
  ours = Table(open_clip.rules(small), flat_shapes(small)).their_shapes
  create = timm.create_model
  monkeypatch.setattr(timm, "create_model", lambda name, **fields: create(name, **fields, depth=1))
  with torch.device("meta"):
    theirs = theirs_of.CustomTextCLIP(fields["embed_dim"], fields["vision_cfg"], fields["text_cfg"] | {"layers": 1})
  assert ours == {name.removeprefix("text."): tuple(value.shape) for name, value in theirs.state_dict().items()}
  assert open_clip.read(Fields(open_clip.write(config), name), {}) == config


@pytest.mark.parametrize("name", timm_eva.TOWERS)
def test_the_settings_are_those_of_timm(name):
  ours = timm_eva.TOWERS[name]
  with torch.device("meta"):
    theirs = timm.create_model(name, global_pool={"cls": "token"}.get(ours.pool, "map"))
  block, rope, mapped = theirs.blocks[0], theirs.rope, theirs.attn_pool
  assert (len(theirs.blocks), block.attn.num_heads, theirs.norm.eps) == (ours.depth, ours.num_heads, ours.norm_epsilon)
  assert (type(block).__name__ == "EvaBlockPostNorm") == (ours.norm == "branch")
  assert type(getattr(block.mlp, "act", None)).__name__ == {"gelu": "GELU", "silu": "SiLU"}[ours.activation]
  assert (mapped is None) == (ours.pool == "cls") and (mapped is None or mapped.num_heads == ours.map_heads)
  assert (rope is None) == (ours.rotary == "none")
  if rope is not None:
    found = (rope.ref_feat_shape, rope.grid_offset, rope.temperature, rope.grid_indexing)
    axes = {"yx": "ij", "xy": "xy"}[ours.rotary_axes]
    assert found == ((ours.rotary_grid,) * 2, ours.rotary_start, ours.rotary_temperature, axes)


def test_settings_that_mmjax_does_not_have_are_refused():
  fields = json.loads((SHIPPED / "EVA02-B-16.json").read_text())
  for name, value, said in (
    ("timm_pool", "avg", "timm_pool is 'avg'; mmjax supports only 'token'"),
    ("timm_proj", "mlp", "timm_proj is 'mlp'"),
    ("image_size", 240, "image_size is 240"),
  ):
    with pytest.raises(InteropError, match=said):
      open_clip.read(Fields(fields | {"vision_cfg": fields["vision_cfg"] | {name: value}}, "config"), {})


def test_null_is_a_setting_that_is_used():
  vision = Fields(json.loads((SHIPPED / "EVA02-B-16.json").read_text()), "config").object("vision_cfg")
  timm_eva.read(vision, 512)
  assert "timm_proj = None" in vision.account(OPEN_CLIP_MODEL)["used"]


def test_another_model_is_refused_by_what_timm_has():
  config = open_clip.read(Fields(json.loads((SHIPPED / "EVA02-B-16.json").read_text()), "config"), {})
  small = dataclasses.replace(config, image=dataclasses.replace(config.image, depth=3))
  with pytest.raises(InteropError, match="has none of this size; it has eva_giant_patch14_224"):
    open_clip.write(small)

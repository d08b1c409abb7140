"""open_clip's models with image towers of timm, at reduced size; and what mmjax reads of all that open_clip ships."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmjax import interop
from mmjax.interop import open_clip, open_clip_coca, timm_vit
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from tests.interop.open_clip_folders import written
from tests.interop.references import IMAGES, assert_close, assert_same_params, embed, reference

pytestmark = pytest.mark.references
theirs_of = reference("open_clip")
import timm  # noqa: E402
import torch  # noqa: E402

SHIPPED = sorted((Path(theirs_of.__file__).parent / "model_configs").glob("*.json"))
TEXT = dict(context_length=9, vocab_size=50, width=12, heads=2, layers=2)
SMALL = dict(img_size=24, patch_size=8, embed_dim=16, depth=2, num_heads=2)
IDS = np.random.default_rng(0).integers(1, 49, (4, 9)).astype(np.int32)
CASES = {
  "vit_base_patch16_siglip_224": dict(timm_pool="map", timm_proj="none"),
  "vit_large_patch16_siglip_512": dict(timm_pool="map", timm_proj="none"),  # the tanh approximation of GELU
  "vit_large_patch14_clip_224": dict(timm_pool="token", timm_proj=None),
  "vit_medium_patch16_gap_256": dict(timm_pool="", timm_proj="linear"),
  "vit_relpos_medium_patch16_cls_224": dict(timm_pool="", timm_proj="linear"),
}


@pytest.fixture
def reduced(monkeypatch):
  """timm's towers and ours with the same few small numbers."""
  create = timm.create_model
  monkeypatch.setattr(timm, "create_model", lambda name, **fields: create(name, **fields, **SMALL))
  sizes = dict(image_size=24, patch_size=8, width=16, depth=2, num_heads=2, mlp_dim=64)
  small = {name: dataclasses.replace(tower, **sizes) for name, tower in timm_vit.TOWERS.items() if name in CASES}
  monkeypatch.setattr(timm_vit, "TOWERS", small)


@pytest.mark.parametrize("name", CASES)
def test_embeddings_both_ways(name, reduced, tmp_path):
  vision = dict(timm_model_name=name, timm_model_pretrained=False, image_size=24) | CASES[name]
  text = TEXT | dict(no_causal_mask=True, pool_type="last", proj_bias=True, norm_kwargs={"eps": 1e-6})
  embed_dim = 16 if CASES[name]["timm_proj"] else 10
  cfg = dict(vision_cfg=vision, text_cfg=text, init_logit_bias=-10, custom_text=True)
  theirs, _ = written(tmp_path / "theirs", cfg, embed_dim=embed_dim)
  found = interop.load_pretrained(tmp_path / "theirs")
  pixels, ids = torch.tensor(IMAGES[:, :24, :24].transpose(0, 3, 1, 2)), torch.tensor(IDS).long()
  with torch.no_grad():
    expected = theirs.encode_image(pixels), theirs.encode_text(ids)
  assert_close(embed(found.model, found.params, "encode_image", IMAGES[:, :24, :24]), expected[0])
  assert_close(embed(found.model, found.params, "encode_text", IDS), expected[1])
  interop.save(found.model, found.params, tmp_path / "ours", format="open_clip", preprocess=found.preprocess)
  again, _, _ = theirs_of.create_model_and_transforms(f"local-dir:{tmp_path / 'ours'}")
  with torch.no_grad():
    torch.testing.assert_close(again.eval().encode_image(pixels), expected[0], rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)
  back = tmp_path / "ours/open_clip_model.safetensors"
  assert any(key.startswith("visual.trunk.") for key in interop_tensors(back))


def interop_tensors(path):
  from safetensors import safe_open

  with safe_open(path, framework="np") as file:
    return list(file.keys())


@pytest.mark.parametrize("name", [name for name in timm_vit.TOWERS if name.startswith("vit_")])
def test_the_sizes_are_those_of_timm(name):
  ours = timm_vit.TOWERS[name]
  with torch.device("meta"):
    theirs = timm.create_model(name, num_classes=0 if ours.pool == "map" else 5)
  block = theirs.blocks[0]
  sizes = (theirs.patch_embed.img_size[0], theirs.patch_embed.grid_size[0], theirs.embed_dim, len(theirs.blocks))
  assert sizes == (ours.image_size, ours.grid, ours.width, ours.depth)
  assert (block.attn.num_heads, block.mlp.fc1.out_features) == (ours.num_heads, ours.hidden)
  assert theirs.norm.eps == ours.norm_epsilon
  assert (type(block.mlp.act).__name__ == "GELUTanh") == (ours.activation == "gelu_tanh")
  assert (block.attn.qkv.bias is None) == (ours.attention_bias == "none")
  assert getattr(block.ls1, "init_values", None) == ours.layer_scale


def read(path) -> str:
  """Empty for a shipped configuration that mmjax reads, else the reason."""
  fields = Fields(json.loads(path.read_text()), path.stem)
  try:
    (open_clip_coca if "multimodal_cfg" in fields else open_clip).read(fields, {})
  except InteropError as error:
    return str(error)
  return ""


def test_what_open_clip_ships_is_read_or_refused_by_name():
  refused = {path.stem: said for path, said in ((path, read(path)) for path in SHIPPED) if said}
  assert (len(SHIPPED), len(refused)) == (144, 1)
  assert all(name in said for name, said in refused.items())

"""open_clip's models with a ConvNeXt of timm, at reduced size: the same embeddings, both ways."""

import dataclasses

import pytest

from mmjax import interop
from mmjax.encoders import ConvNeXtConfig
from mmjax.interop import open_clip_timm, timm_convnext
from mmjax.interop.fields import Fields
from mmjax.models import TwoTowerConfig
from tests.interop.open_clip_folders import written
from tests.interop.references import IMAGES, assert_close, assert_same_params, assert_same_tensors, embed, reference

pytestmark = pytest.mark.references
open_clip = reference("open_clip")
import timm  # noqa: E402
import torch  # noqa: E402

TEXT = dict(context_length=9, vocab_size=50, width=12, heads=2, layers=1)
CASES = {
  "convnext_base": dict(timm_pool="", timm_proj="linear", image_size=64),
  "convnext_large": dict(timm_pool="", timm_proj="mlp", image_size=32),
  "convnext_xxlarge": dict(timm_pool="avg", timm_proj=None, image_size=64),
}


@pytest.fixture
def reduced(monkeypatch):
  """timm's networks and ours with the same few small numbers."""
  create, small = timm.create_model, dict(depths=(1, 1, 2, 1), dims=(4, 8, 16, 32))
  monkeypatch.setattr(timm, "create_model", lambda name, **fields: create(name, **fields, **small))
  towers = {n: dataclasses.replace(t, layers=(1, 1, 2, 1), width=4) for n, t in timm_convnext.TOWERS.items()}
  monkeypatch.setattr(timm_convnext, "TOWERS", {name: towers[name] for name in CASES})


@pytest.mark.parametrize("name", CASES)
def test_embeddings_both_ways(name, reduced, tmp_path):
  vision = dict(timm_model_name=name, timm_model_pretrained=False, timm_drop=0.0, timm_drop_path=0.1) | CASES[name]
  theirs, _ = written(tmp_path / "theirs", dict(vision_cfg=vision, text_cfg=TEXT))
  found = interop.load_pretrained(tmp_path / "theirs")
  side = vision["image_size"]
  images, pixels = IMAGES[:, :side, :side], torch.tensor(IMAGES[:, :side, :side].transpose(0, 3, 1, 2))
  with torch.no_grad():
    expected = theirs.encode_image(pixels)
  assert_close(embed(found.model, found.params, "encode_image", images), expected)
  interop.save(found.model, found.params, tmp_path / "ours", format="open_clip", preprocess=found.preprocess)
  assert_same_tensors(*(tmp_path / one / "open_clip_model.safetensors" for one in ("theirs", "ours")))
  again, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'ours'}")
  with torch.no_grad():
    torch.testing.assert_close(again.eval().encode_image(pixels), expected, rtol=0, atol=1e-6)
  again = interop.load_pretrained(tmp_path / "ours")
  assert_same_params(again.params, found.params)
  assert again.preprocess == found.preprocess


@pytest.mark.parametrize("name", timm_convnext.TOWERS)
def test_the_sizes_are_those_of_timm(name):
  ours = timm_convnext.TOWERS[name]
  with torch.device("meta"):
    theirs = timm.create_model(name)
  blocks = [stage.blocks for stage in theirs.stages]
  assert tuple(map(len, blocks)) == ours.layers
  assert [stage[0].conv_dw.in_channels for stage in blocks] == [ours.width * 2**stage for stage in range(4)]
  norms = (theirs.stem[1], theirs.head.norm, *(part.norm for stage in blocks for part in stage))
  assert {norm.eps for norm in norms} == {ours.norm_epsilon}


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(timm_proj_bias=True), "timm_proj_bias is True"),
    (dict(timm_pool="max"), "timm_pool is 'max'"),
    (dict(timm_proj=None), "timm_pool is ''; mmjax supports only 'avg'"),
    (dict(timm_proj="none", timm_pool="avg"), "the tower gives 768 numbers, and embed_dim is 10"),
    (dict(timm_proj="x"), "timm_proj is 'x'"),
    (dict(image_size=100), "image_size=100 must be divisible by 8"),
    (dict(patch_size=4), "unknown field 'patch_size'"),
  ],
)
def test_other_settings_are_refused_by_name(changes, said):
  vision = dict(timm_model_name="convnext_tiny", timm_pool="", timm_proj="linear") | changes
  with pytest.raises((interop.InteropError, ValueError), match=said):
    open_clip_timm.read(Fields(vision, "vision_cfg"), 10)


def test_another_size_is_refused_by_what_timm_has():
  with pytest.raises(interop.InteropError, match=r"convnext_tiny: \(\(3, 3, 9, 3\), 96, 1e-06\)"):
    timm_convnext.write(TwoTowerConfig(image=ConvNeXtConfig(width=64)))

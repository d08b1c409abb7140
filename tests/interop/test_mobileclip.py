"""open_clip's MobileCLIP, with towers of timm at reduced size: the same embeddings, both ways."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from mmjax import interop
from mmjax.encoders import FastViTConfig
from mmjax.interop import open_clip_timm, timm_fastvit, timm_vit
from mmjax.interop.fields import Fields
from mmjax.models import TwoTowerConfig
from tests.interop.open_clip_folders import written
from tests.interop.references import IMAGES, assert_close, assert_same_params, assert_same_tensors, embed, reference

pytestmark = pytest.mark.references
open_clip = reference("open_clip")
import timm  # noqa: E402
import timm.models.vision_transformer_hybrid as hybrid  # noqa: E402
import torch  # noqa: E402

TEXT = dict(context_length=9, vocab_size=50, width=12, heads=2, layers=1, no_causal_mask=True)
VIT = "vit_base_mci_224"
SMALL = {"fastvit_mci0": ((1, 2, 1, 1), 8), "fastvit_mci3": ((1, 1, 1, 1, 1), 4)}


@pytest.fixture
def reduced(monkeypatch):
  """timm's networks and ours with the same few small numbers."""
  create, towers, stem = timm.create_model, timm_fastvit.TOWERS, hybrid.ConvStem
  vit = dataclasses.replace(timm_vit.TOWERS[VIT], image_size=32, width=16, depth=1, num_heads=2, mlp_dim=64)

  def made(name, **fields):
    if name == VIT:
      return create(name, **fields, img_size=32, embed_dim=16, depth=1, num_heads=2)
    layers, width = SMALL[name]
    return create(name, **fields, layers=layers, embed_dims=[width * 2**stage for stage in range(len(layers))])

  small = {n: dataclasses.replace(towers[n], layers=layers, width=width) for n, (layers, width) in SMALL.items()}
  monkeypatch.setattr(timm, "create_model", made)
  monkeypatch.setattr(hybrid, "ConvStem", lambda **fields: stem(**fields | dict(channels=(4, 4, 16))))
  monkeypatch.setattr(timm_fastvit, "TOWERS", small)
  monkeypatch.setitem(timm_vit.TOWERS, VIT, vit)


@pytest.mark.parametrize("name", [*SMALL, VIT])
def test_embeddings_both_ways(name, reduced, tmp_path):
  side, pool = (32, "token") if name == VIT else (64, "avg")
  vision = dict(timm_model_name=name, timm_model_pretrained=False, timm_drop=0.0, timm_drop_path=0.0, image_size=side)
  cfg = dict(vision_cfg=vision | dict(timm_pool=pool, timm_proj=None), text_cfg=TEXT)
  theirs, transform = written(tmp_path / "theirs", cfg)
  found = interop.load_pretrained(tmp_path / "theirs")
  images = IMAGES[:, :side, :side] * np.array([0.2, 1.0, 4.0], np.float32)[:, None, None, None]
  pixels = torch.tensor(images.transpose(0, 3, 1, 2))
  with torch.no_grad():
    expected = theirs.encode_image(pixels)
  ours = embed(found.model, found.params, "encode_image", images)
  assert np.ptp(ours, axis=0).max() > 0.01  # the random weights let differences of the images through
  assert_close(ours, expected)
  interop.save(found.model, found.params, tmp_path / "ours", format="open_clip", preprocess=found.preprocess)
  files = [tmp_path / one / "open_clip_model.safetensors" for one in ("theirs", "ours")]
  assert_same_tensors(*files, but=("num_batches_tracked",))
  again, _, transform_again = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'ours'}")
  with torch.no_grad():
    torch.testing.assert_close(again.eval().encode_image(pixels), expected, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)
  picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (70, 45, 3)).astype(np.uint8))
  for t in (transform, transform_again):
    np.testing.assert_allclose(found.preprocess(picture), t(picture).numpy().transpose(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize("name", timm_fastvit.TOWERS)
def test_the_sizes_are_those_of_timm(name):
  ours = timm_fastvit.TOWERS[name]
  with torch.device("meta"):
    theirs = timm.create_model(name, num_classes=5)
  stages = theirs.stages
  assert tuple(len(stage.blocks) for stage in stages) == ours.layers
  hidden = [(stage.blocks[0].mlp.fc1.in_channels, stage.blocks[0].mlp.fc1.out_channels) for stage in stages]
  assert hidden == [(width, ours.expansion * width) for width in ours.widths]
  attention = [hasattr(stage.blocks[0].token_mixer, "qkv") for stage in stages]
  assert attention == [ours.has_attention(stage) for stage in range(len(stages))]
  assert [hasattr(stage.pos_emb, "pos_enc") for stage in stages] == attention
  squeezed = [hasattr(stage.downsample.proj[0].se, "fc1") for stage in stages[1:]]
  assert squeezed == [ours.has_squeeze(stage) for stage in range(1, len(stages))]
  assert (theirs.stem[0].conv_scale is not None) == ours.stem_scale
  assert isinstance(stages[-1].blocks[0].norm, torch.nn.LayerNorm) == (ours.attention_norm == "layer")
  assert (theirs.num_features, theirs.final_conv.se.fc1.out_channels) == (ours.pooled_width, ours.pooled_width // 16)
  assert {n.eps for n in theirs.modules() if isinstance(n, torch.nn.BatchNorm2d | torch.nn.LayerNorm)} == {1e-5}


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(timm_pool="max"), "timm_pool is 'max'"),
    (dict(timm_proj="linear"), "timm_proj is 'linear'"),
    (dict(image_size=100), "image_size=100 must be divisible by 32"),
    (dict(width=4), "unknown field 'width'"),
  ],
)
def test_other_settings_are_refused_by_name(changes, said):
  vision = dict(timm_model_name="fastvit_mci0", timm_pool="avg", timm_proj=None) | changes
  with pytest.raises((interop.InteropError, ValueError), match=said):
    open_clip_timm.read(Fields(vision, "vision_cfg"), 10)


def test_another_size_is_refused_by_what_timm_has():
  with pytest.raises(interop.InteropError, match=r"fastvit_mci1: \(\(4, 12, 20, 4\), 64\)"):
    timm_fastvit.write(TwoTowerConfig(image=FastViTConfig(width=96)))

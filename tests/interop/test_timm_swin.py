"""open_clip's Swin: embeddings at reduced size both ways, and the tensors of the configuration that it ships."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmjax import interop
from mmjax.interop import open_clip, timm_swin
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Table
from mmjax.interop.shapes import flat_shapes
from tests.interop.open_clip_folders import written
from tests.interop.references import IMAGES, assert_close, assert_same_tensors, embed, reference

pytestmark = pytest.mark.references
theirs_of = reference("open_clip")
import timm  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

NAME = "swin_base_patch4_window7_224"
SHIPPED = Path(theirs_of.__file__).parent / "model_configs" / f"{NAME}.json"
TEXT = dict(context_length=9, vocab_size=50, width=12, heads=2, layers=2)


@pytest.mark.parametrize(
  ("projection", "side", "window", "layers"),
  [(dict(timm_pool="", timm_proj="linear"), 24, 3, (1, 2)), (dict(timm_pool="avg", timm_proj=None), 32, 4, (2, 1, 1))],
)
def test_embeddings_both_ways(projection, side, window, layers, tmp_path, monkeypatch):
  heads = (1, 2, 4)[: len(layers)]
  small = dict(img_size=side, patch_size=2, window_size=window, embed_dim=8, depths=layers, num_heads=heads)
  create = timm.create_model
  monkeypatch.setattr(timm, "create_model", lambda name, **fields: create(name, **fields, **small))
  sizes = dict(image_size=side, patch_size=2, width=8, layers=layers, num_heads=heads, window_size=window)
  monkeypatch.setitem(timm_swin.TOWERS, NAME, dataclasses.replace(timm_swin.TOWERS[NAME], **sizes))
  cfg = dict(vision_cfg=dict(timm_model_name=NAME, image_size=side) | projection, text_cfg=TEXT)
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
  assert_same_tensors(*(tmp_path / who / "open_clip_model.safetensors" for who in ("theirs", "ours")))
  again, _, _ = theirs_of.create_model_and_transforms(f"local-dir:{tmp_path / 'ours'}")
  with torch.no_grad():
    torch.testing.assert_close(again.eval().encode_image(torch.tensor(images.transpose(0, 3, 1, 2))), expected)


def shipped(**changes):
  fields = json.loads(SHIPPED.read_text())
  return open_clip.read(Fields(fields | {"vision_cfg": fields["vision_cfg"] | changes}, NAME), {})


def test_the_shipped_configuration_has_the_tensors_of_open_clip():
  config = shipped()
  ours = Table(open_clip.rules(config), flat_shapes(config)).their_shapes
  with torch.device("meta"):
    theirs = theirs_of.CLIP(**json.loads(SHIPPED.read_text()))
  assert ours == {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
  assert theirs.visual.trunk.norm.eps == config.image.norm_epsilon


def test_settings_that_would_give_other_embeddings_are_refused():
  for changes, said in (
    (dict(timm_pool="max"), "timm_pool is 'max'"),
    (dict(timm_pool="", timm_proj=None), "timm_pool is ''"),  # open_clip would then project every token
    (dict(image_size=384), "image_size is 384"),
  ):
    with pytest.raises(InteropError, match=said):
      shipped(**changes)

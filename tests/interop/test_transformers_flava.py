"""transformers' FlavaModel and ours give the same vectors, both ways, from random weights."""

import jax
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.inspection import beside
from tests.interop.references import (
  IMAGES,
  assert_close,
  assert_same_params,
  assert_same_tensors,
  embed,
  randomize,
  reference,
)

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

SIZE = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
IMAGE = SIZE | dict(image_size=16, patch_size=8)
TEXT = SIZE | dict(vocab_size=40, max_position_embeddings=9, hidden_size=12)
JOINT = SIZE | dict(num_hidden_layers=2, hidden_size=8)
OTHER = dict(hidden_act="gelu_new", layer_norm_eps=1e-3, num_attention_heads=4)
CASES = {
  "three widths": dict(image_config=IMAGE, text_config=TEXT, multimodal_config=JOINT),
  "activations and epsilons": dict(
    image_config=IMAGE | OTHER | dict(patch_size=5),
    text_config=TEXT | OTHER | dict(type_vocab_size=3),
    multimodal_config=JOINT | OTHER,
  ),
}
IDS = np.random.default_rng(0).integers(1, 40, (3, 9)).astype(np.int32)
IDS[0, 4:], IDS[1, 7:] = 0, 0
BATCH = {"image": IMAGES[:, :16, :16], "text": IDS}


def vectors(model):
  """Embeddings of images and texts, the poolers' vectors, and the fused tokens."""
  ids, pixels = torch.tensor(IDS).long(), torch.tensor(BATCH["image"].transpose(0, 3, 1, 2))
  mask = (ids != 0).long()
  with torch.no_grad():
    image, text = model.image_model(pixels), model.text_model(ids, attention_mask=mask)
    out = model(input_ids=ids, pixel_values=pixels, attention_mask=mask)
  embeddings = [project(part.last_hidden_state[:, 0]) for project, part in (
    (model.image_projection, image), (model.text_projection, text)
  )]  # fmt: skip
  fused = out.multimodal_output
  states = out.image_output.hidden_states[-1][:, 1]
  pooled = image.pooler_output, text.pooler_output, fused.pooler_output
  return [*embeddings, *pooled, fused.last_hidden_state[:, 1], states]


def parts(model, batch):
  encoded = model.encode(batch)
  fused = model.fuse(encoded)
  pooled = encoded["image"].pooled, encoded["text"].pooled, fused["text"].pooled
  return [*pooled, fused["image"].tokens[:, 0], encoded["image"].tokens[:, 1]]


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  theirs = transformers.FlavaModel(transformers.FlavaConfig(**CASES[case], projection_dim=6)).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  model, params, expected = found.model, found.params, vectors(theirs)
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  pair = [embed(model, params, f"encode_{name}", BATCH[name]) for name in ("image", "text")]
  rest = jax.jit(lambda p: model.apply({"params": p}, BATCH, method=parts))(params)
  for mine, yours in zip([*pair, *rest], expected, strict=True):
    assert_close(np.asarray(mine), yours)
  scale = np.asarray(model.apply({"params": params}, method="logit_scale"))
  np.testing.assert_allclose(scale, theirs.logit_scale.exp().item(), rtol=1e-6)
  interop.save(model, params, tmp_path / "ours")
  names = ("theirs/model.safetensors", "ours/model.safetensors")
  assert_same_tensors(*(tmp_path / name for name in names), but=("mask_token",))
  again, info = transformers.FlavaModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  for mine, yours in zip(vectors(again.eval()), expected, strict=True):
    torch.testing.assert_close(mine, yours, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], params)


def test_a_tower_of_the_model_for_pretraining(tmp_path):
  """Its tensors have a prefix, and heads that are not read."""
  codes = dict(num_groups=2, input_channels=3, num_blocks_per_group=1, hidden_size=4, vocab_size=8)
  config = transformers.FlavaConfig(**CASES["three widths"], image_codebook_config=codes)
  theirs = transformers.FlavaForPreTraining(config).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path)
  found = interop.load_pretrained(tmp_path, tower="image")
  with torch.no_grad():
    expected = theirs.flava.image_model(torch.tensor(BATCH["image"].transpose(0, 3, 1, 2))).pooler_output
  assert_close(embed(found.model, found.params, "encode_image", BATCH["image"]), expected)
  assert interop.load(tmp_path)[0].config.image == found.model.config

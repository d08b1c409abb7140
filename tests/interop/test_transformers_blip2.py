"""transformers' BLIP-2 and ours compare and match alike, both ways, from random weights."""

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

IMAGE = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16)
IMAGE |= dict(patch_size=8)
TEXT = dict(hidden_size=12, intermediate_size=20, num_hidden_layers=3, num_attention_heads=2, vocab_size=40)
TEXT |= dict(max_position_embeddings=9, encoder_hidden_size=16, use_qformer_text_input=True)
OTHER = dict(hidden_act="gelu_new", layer_norm_eps=1e-3, num_attention_heads=4)
CASES = {
  "every second block": (IMAGE, TEXT, 3),
  "activations and epsilons": (
    IMAGE | OTHER | dict(patch_size=5, num_hidden_layers=1),
    TEXT | OTHER | dict(cross_attention_frequency=3, num_hidden_layers=2),
    5,
  ),
}
IDS = np.random.default_rng(0).integers(1, 40, (3, 9)).astype(np.int32)
IDS[0, 4:], IDS[1, 7:] = 0, 0
PIXELS = IMAGES[:, :16, :16]


def written(case, folder):
  image, text, queries = CASES[case]
  config = transformers.Blip2Config(
    vision_config=image, qformer_config=text, num_query_tokens=queries, image_text_hidden_size=6
  )
  theirs = transformers.Blip2ForImageTextRetrieval(config).eval()
  randomize(theirs)
  theirs.save_pretrained(folder)
  return theirs


def compared(model):
  """Embeddings of images and texts, similarities, and the scores of the pairs."""
  ids, pixels = torch.tensor(IDS).long(), torch.tensor(PIXELS.transpose(0, 3, 1, 2))
  inputs = dict(pixel_values=pixels, input_ids=ids, attention_mask=(ids != 0).long())
  with torch.no_grad():
    out = model(**inputs, use_image_text_matching_head=False)
    match = model(**inputs, use_image_text_matching_head=True)
  return out.image_embeds, out.text_embeds, out.logits_per_image, match.logits_per_image


def matched(model, ids, images):
  image = model.encode({"image": images})["image"]
  return model.match_logits(model.fuse(ids, image).tokens)


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  theirs = written(case, tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  model, params, expected = found.model, found.params, compared(theirs)
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  image, text = embed(model, params, "encode_image", PIXELS), embed(model, params, "encode_text", IDS)
  match = jax.jit(lambda p: model.apply({"params": p}, IDS, PIXELS, method=matched))(params)
  for mine, yours in zip((image, text, model.similarities(image, text), match), expected, strict=True):
    assert_close(np.asarray(mine), yours)
  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  kind = transformers.Blip2ForImageTextRetrieval
  again, info = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  for mine, yours in zip(compared(again.eval()), expected, strict=True):
    torch.testing.assert_close(mine, yours, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], params)

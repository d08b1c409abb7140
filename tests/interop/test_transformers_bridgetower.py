"""transformers' BridgeTower and ours give the same vectors and scores, both ways, from random weights."""

import numpy as np
import pytest
from PIL import Image

from mmjax import interop
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import read_json
from mmjax.interop.inspection import beside
from mmjax.interop.processor import from_transformers
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

VISION = dict(hidden_size=64, num_hidden_layers=3, image_size=16, patch_size=8)
TEXT = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, vocab_size=40)
TEXT |= dict(max_position_embeddings=12)
TOP = dict(hidden_size=16, num_hidden_layers=2, link_tower_type="scaled_add", layer_norm_eps=1e-4)
FIRST = TOP | dict(vision_config=VISION, text_config=TEXT)
SECOND = FIRST | dict(
  num_hidden_layers=3,
  link_tower_type="interpolate",
  share_cross_modal_transformer_layers=False,
  vision_config=VISION | dict(patch_size=4, num_hidden_layers=4, remove_last_layer=True, layer_norm_eps=1e-3),
  text_config=TEXT | dict(hidden_act="relu", num_attention_heads=4, type_vocab_size=2, pad_token_id=3),
)
# transformers embeds only with encoders of one width, and with one transform for all blocks.
EMBEDDED = dict(contrastive_hidden_size=10, logit_scale_init_value=2.0, hidden_size=64)
WIDE = dict(hidden_size=64)
CASES = {
  "BridgeTowerModel": (FIRST, SECOND),
  "BridgeTowerForImageAndTextRetrieval": (FIRST, SECOND),
  "BridgeTowerForContrastiveLearning": (
    FIRST | EMBEDDED | dict(text_config=TEXT | WIDE),
    SECOND
    | EMBEDDED
    | dict(share_cross_modal_transformer_layers=True, link_tower_type="add", text_config=SECOND["text_config"] | WIDE),
  ),
}
PIXELS = IMAGES[:, :16, :16]


def ids(pad):
  words = np.random.default_rng(0).integers(4, 40, (3, 8)).astype(np.int32)
  words[0, 4:], words[1, 7:] = pad, pad
  return words


def result(model):
  """The pooled vector, the scores, or the three embeddings."""
  pad = model.config.text_config.pad_token_id
  words = torch.tensor(ids(pad)).long()
  with torch.no_grad():
    out = model(words, (words != pad).long(), pixel_values=torch.tensor(PIXELS.transpose(0, 3, 1, 2)))
  if "text_embeds" in out:
    return {"text": out.text_embeds, "image": out.image_embeds, "pair": out.cross_embeds}
  return {"match": out.logits} if "Retrieval" in type(model).__name__ else {"pooled": out.pooler_output}


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("name", CASES)
def test_both_ways(name, second, tmp_path):
  theirs = getattr(transformers, name)(transformers.BridgeTowerConfig(**CASES[name][second])).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  assert found.source.architecture.name == name
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  batch = {"image": PIXELS, "text": ids(theirs.config.text_config.pad_token_id)}
  ours = embed(found.model, found.params, "__call__", batch)[()]
  expected = result(theirs)
  for key, value in expected.items():
    assert_close(np.asarray(ours[key]), value)
  if "text" in expected:
    assert_close(embed(found.model, found.params, "encode_image", PIXELS), expected["image"])
    scale = found.model.apply({"params": found.params}, method="logit_scale")
    assert float(scale) == pytest.approx(float(theirs.logit_scale.detach().exp()), rel=1e-6)

  interop.save(found.model, found.params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again, info = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  for key, value in result(again.eval()).items():
    torch.testing.assert_close(value, expected[key], rtol=0, atol=2e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)
  if name == "BridgeTowerModel":
    with torch.no_grad():
      states = theirs.vision_model(torch.tensor(PIXELS.transpose(0, 3, 1, 2)))
    tower = interop.load(tmp_path / "theirs", tower="image")
    assert_close(embed(*tower, "encode_image", PIXELS), states[-1][:, 0])


@pytest.mark.parametrize("shape", [(40, 23), (30, 90), (64, 64), (20, 70)])
def test_images_are_prepared_as_by_the_processor(shape, tmp_path):
  size = {"shortest_edge": 32}
  transformers.BridgeTowerImageProcessor(size=size, crop_size=size, size_divisor=8).save_pretrained(tmp_path)
  ours = from_transformers(read_json(tmp_path / "preprocessor_config.json"), 32, "BridgeTowerModel")
  theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
  picture = Image.fromarray(np.random.default_rng(3).integers(0, 256, (*shape, 3)).astype(np.uint8))
  expected = theirs(picture, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
  assert (np.abs(ours(picture) - expected) * np.array(ours.std)).max() <= 1.001 / 255
  with pytest.raises(InteropError, match="crop_size"):
    from_transformers(read_json(tmp_path / "preprocessor_config.json"), 24, "BridgeTowerModel")


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (dict(share_link_tower_layers=True), "share_link_tower_layers"),
    (dict(num_hidden_layers=4), "depth=3 must be at least cross.depth=4"),
    (dict(vision_config=VISION | dict(num_hidden_layers=5)), "image.depth=5 must be equal to text.depth=3"),
    (dict(vision_config=VISION | dict(share_layernorm=False)), "share_layernorm"),
  ],
)
def test_settings_that_mmjax_does_not_have_are_named(changes, said, tmp_path):
  theirs = transformers.BridgeTowerModel(transformers.BridgeTowerConfig(**FIRST))
  for name, value in changes.items():
    setattr(theirs.config, name, transformers.BridgeTowerVisionConfig(**value) if isinstance(value, dict) else value)
  theirs.save_pretrained(tmp_path)
  with pytest.raises(InteropError, match=said):
    interop.load(tmp_path)

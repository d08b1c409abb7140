"""transformers' X-CLIP and ours give the same embeddings and logits of videos and texts, both ways."""

import numpy as np
import pytest

from mmjax import interop
from mmjax.data.columns.video import PADDED
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import read_json
from mmjax.interop.inspection import beside
from mmjax.interop.processor import from_transformers
from tests.interop.references import (
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

from tests.interop.test_transformers import IDS, OTHER, TEXT, VISION  # noqa: E402

FRAMES = np.random.default_rng(1).standard_normal((2, 3, 16, 16, 3)).astype(np.float32)
ORDER = dict(mit_hidden_size=8, mit_intermediate_size=12, mit_num_hidden_layers=1, mit_num_attention_heads=2)
TOP = dict(projection_dim=8, prompt_layers=1, prompt_num_attention_heads=2, logit_scale_init_value=2.0)
CASES = {
  "first": TOP | dict(vision_config=VISION | ORDER | dict(num_frames=3), text_config=TEXT),
  "second": TOP
  | dict(prompt_layers=2, prompt_num_attention_heads=4, prompt_hidden_act="gelu", prompt_alpha=0.3)
  | dict(
    vision_config=VISION | ORDER | OTHER | dict(num_frames=3, patch_size=4, mit_num_hidden_layers=2),
    text_config=TEXT | OTHER | dict(num_hidden_layers=1),
  ),
}


def result(model):
  with torch.no_grad():
    out = model(torch.tensor(IDS).long(), pixel_values=torch.tensor(FRAMES.transpose(0, 1, 4, 2, 3)))
    text = model.get_text_features(torch.tensor(IDS).long()).pooler_output
  return {"scores": out.logits_per_video, "video": out.video_embeds, "text": text / text.norm(dim=-1, keepdim=True)}


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  theirs = transformers.XCLIPModel(transformers.XCLIPConfig(**CASES[case])).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  ours, expected = embed(found.model, found.params, "__call__", {"video": FRAMES, "text": IDS})[()], result(theirs)
  for name, value in expected.items():
    assert_close(np.asarray(ours[name]), value)
  with torch.no_grad():
    features = theirs.get_video_features(torch.tensor(FRAMES.transpose(0, 1, 4, 2, 3))).pooler_output
  assert_close(embed(found.model, found.params, "encode_video", FRAMES), features)

  interop.save(found.model, found.params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again, info = transformers.XCLIPModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  for name, value in result(again.eval()).items():
    torch.testing.assert_close(value, expected[name], rtol=0, atol=2e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)
  if case == "first":  # padding of a clip changes nothing, wherever it is
    padded = np.stack([np.concatenate([FRAMES[0, :2], np.full_like(FRAMES[0, :1], PADDED)])] * 2)
    padded[1, 2] = 2 * PADDED
    same = embed(found.model, found.params, "encode_video", padded)
    np.testing.assert_array_equal(same[0], same[1])
    assert np.abs(same[0] - np.asarray(features[0])).max() > 1e-3
    with pytest.raises(ValueError, match="clips have 2 frames, but frames=3"):
      found.model.apply({"params": found.params}, FRAMES[:, :2], method="encode_video")


def test_frames_are_prepared_as_by_the_processor_and_others_are_refused(tmp_path):
  settings = dict(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16})
  transformers.VideoMAEImageProcessor(**settings, image_mean=[0.4, 0.5, 0.6]).save_pretrained(tmp_path)
  ours = from_transformers(read_json(tmp_path / "preprocessor_config.json"), 16, "XCLIPModel")
  theirs = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
  frame = np.random.default_rng(3).integers(0, 256, (40, 23, 3)).astype(np.uint8)
  expected = np.asarray(theirs([frame], return_tensors="np").pixel_values).reshape(3, 16, 16).transpose(1, 2, 0)
  assert (np.abs(ours(frame) - expected) * np.array(ours.std)).max() <= 1.001 / 255

  theirs = transformers.XCLIPModel(transformers.XCLIPConfig(**CASES["first"]))
  theirs.config.vision_config.mit_hidden_size = 10
  theirs.save_pretrained(tmp_path / "wrong")
  with pytest.raises(InteropError, match="mit_hidden_size is 10, but must be the projection_dim, 8"):
    interop.load(tmp_path / "wrong")
  with pytest.raises(InteropError, match="the image tower of XCLIPModel has parts that a single tower does not have"):
    theirs.config.vision_config.mit_hidden_size = 8
    theirs.save_pretrained(tmp_path / "right")
    interop.load(tmp_path / "right", tower="image")

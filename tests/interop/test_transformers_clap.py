"""transformers' CLAP and ours give the same embeddings, both ways, from random weights, and read the same features."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax import interop
from mmjax.data import Sound
from mmjax.data.sound.features import LogMel
from mmjax.interop.errors import InteropError
from mmjax.interop.inspection import beside
from tests.data.sounds import tone
from tests.interop.references import assert_close, assert_same_params, embed, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

SHARED = dict(projection_dim=6)
AUDIO = dict(spec_size=32, num_mel_bins=8, patch_size=2, patch_stride=[2, 2], patch_embeds_hidden_size=8, window_size=4)
AUDIO |= dict(depths=[2, 1], num_attention_heads=[2, 4], num_hidden_layers=2, hidden_size=16) | SHARED
AUDIO_OTHER = AUDIO | dict(hidden_act="gelu_new", mlp_ratio=2.0, num_mel_bins=16, depths=[1, 2], window_size=8)
TEXT = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
TEXT |= dict(max_position_embeddings=14, pad_token_id=1) | SHARED
TEXT_OTHER = TEXT | dict(hidden_act="gelu_new", layer_norm_eps=1e-3, type_vocab_size=2)
CASES = {"stretched": (AUDIO, TEXT, 100), "whole, and other settings": (AUDIO_OTHER, TEXT_OTHER, 64)}
UNUSED = ("relative_position_index", "num_batches_tracked", "position_ids", "token_type_ids")
IDS = np.random.default_rng(0).integers(2, 50, (3, 12)).astype(np.int32)
IDS[0, 7:], IDS[1, 3:] = 1, 1


def made(audio, text):
  theirs = transformers.ClapModel(transformers.ClapConfig(audio_config=audio, text_config=text, **SHARED)).eval()
  randomize(theirs)
  return theirs


def embeddings(model, features):
  ids = torch.tensor(IDS).long()
  with torch.no_grad():
    out = model(input_ids=ids, attention_mask=(ids != 1).long(), input_features=torch.tensor(features)[:, None])
  return out.audio_embeds, out.text_embeds


def unit(rows):
  return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def tensors(folder):
  """All tensors that a result depends on."""
  found = load_file(folder / "model.safetensors")
  return {name: tensor.tobytes() for name, tensor in found.items() if not name.endswith(UNUSED)}


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  audio, text, frames = CASES[case]
  theirs = made(audio, text)
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  shape = (3, frames, audio["num_mel_bins"])
  features = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
  expected = embeddings(theirs, features)
  sounds = embed(found.model, found.params, "encode_audio", features)
  for mine, yours in zip((sounds, embed(found.model, found.params, "encode_text", IDS)), expected, strict=True):
    assert_close(unit(mine), yours)
  for name, scale in (("logit_scale", theirs.logit_scale_a), ("text_logit_scale", theirs.logit_scale_t)):
    mine = found.model.apply({"params": found.params}, method=name)
    np.testing.assert_allclose(mine, scale.exp().item(), rtol=1e-6)
  interop.save(found.model, found.params, tmp_path / "ours")
  assert tensors(tmp_path / "theirs") == tensors(tmp_path / "ours")
  again, info = transformers.ClapModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
  missing = [name for name in info["missing_keys"] if not name.endswith(UNUSED)]
  assert not missing and not info["unexpected_keys"]
  for mine, yours in zip(embeddings(again.eval(), features), expected, strict=True):
    torch.testing.assert_close(mine, yours, rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)


EXTRACTOR = dict(feature_size=8, sampling_rate=8000, hop_length=80, fft_window_size=256, max_length_s=1)
EXTRACTOR |= dict(frequency_min=50, frequency_max=3800, truncation="rand_trunc")


@pytest.mark.parametrize("padding", ["repeatpad", "pad"])
@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_features_come_along_both_ways(seconds, padding, tmp_path):
  """A clip of 0.3 s is repeated three times, or not, and the rest is silence."""
  made(AUDIO, TEXT).save_pretrained(tmp_path)
  extractor = transformers.ClapFeatureExtractor(**EXTRACTOR, padding=padding)
  extractor.save_pretrained(tmp_path)
  found, clip = interop.load_pretrained(tmp_path), tone(seconds, rate=8000)
  row = found.sound.row({"id": "r", "sound": (clip, 8000)}, None, None)
  expected = extractor(clip, sampling_rate=8000, return_tensors="np").input_features[0, 0]
  np.testing.assert_allclose(row, expected, atol=2e-4)  # decibels, down to -100
  said = beside(found.source)
  assert "sounds: LogMel, 101 frames of 8 bands" in said.notes
  assert not [use for use in said.uses if use.place == "preprocessor_config.json" and use.use.startswith("not read")]
  interop.save(found.model, found.params, tmp_path / "ours", preprocess=found.sound)
  assert interop.load_pretrained(tmp_path / "ours").sound == found.sound
  again = transformers.ClapFeatureExtractor.from_pretrained(tmp_path / "ours")
  np.testing.assert_allclose(again(clip, sampling_rate=8000, return_tensors="np").input_features[0, 0], expected)


def test_what_does_not_fit_is_refused(tmp_path):
  made(AUDIO, TEXT).save_pretrained(tmp_path)
  path = tmp_path / "preprocessor_config.json"
  for name, value in (("truncation", "fusion"), ("feature_size", 9), ("max_length_s", 99), ("padding", "x"), ("a", 1)):
    path.write_text(json.dumps(EXTRACTOR | {name: value}))
    with pytest.raises(InteropError, match=name):
      _ = interop.load_pretrained(tmp_path).sound
  path.write_text(json.dumps(EXTRACTOR))
  found = interop.load_pretrained(tmp_path)
  for column in (Sound(features=LogMel()), Sound(features=found.sound.features, pad="mask")):
    with pytest.raises(InteropError, match="cannot hold this column"):
      interop.save(found.model, found.params, tmp_path / "o", preprocess=column)
  with pytest.raises(ValueError, match="at most 128 frames x bands=8"):
    embed(found.model, found.params, "encode_audio", np.zeros((1, 129, 8), np.float32))
  path = tmp_path / "config.json"
  record = json.loads(path.read_text())
  wrong = {"enable_fusion": True, "patch_stride": [1, 1], "hidden_size": 8, "window_size": 2**20, "spec_size": 2**20}
  for name, value in wrong.items():
    path.write_text(json.dumps(record | {"audio_config": record["audio_config"] | {name: value}}))
    with pytest.raises(InteropError, match=name):
      interop.load(tmp_path)

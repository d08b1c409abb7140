"""transformers' audio spectrogram transformer and ours give the same numbers, both ways, from random weights."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax import interop
from mmjax.data import Sound
from mmjax.data.sound.features import Fbank, LogMel
from mmjax.interop.errors import InteropError
from mmjax.interop.inspection import beside
from tests.data.sounds import tone
from tests.interop.references import assert_close, assert_same_params, embed, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, patch_size=4)
SMALL |= dict(frequency_stride=3, time_stride=2, max_length=40, num_mel_bins=16)
OTHER = SMALL | dict(hidden_act="gelu_new", layer_norm_eps=1e-3, frequency_stride=4, num_hidden_layers=1)
CASES = {"ASTModel": (SMALL, OTHER), "ASTForAudioClassification": (SMALL | dict(id2label={0: "a", 1: "b"}), OTHER)}
FEATURES = np.random.default_rng(0).standard_normal((3, 40, 16)).astype(np.float32)


def result(model, features):
  with torch.no_grad():
    out = model(torch.tensor(features))
  return out.logits if "logits" in out else out.pooler_output


def ours(found, features):
  if found.source.architecture.name == "ASTForAudioClassification":
    return embed(found.model, found.params, "__call__", {"audio": features})
  return np.asarray(found.model.apply({"params": found.params}, features).pooled)


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("name", CASES)
def test_both_ways(name, second, tmp_path):
  theirs = getattr(transformers, name)(transformers.ASTConfig(**CASES[name][second])).eval()
  randomize(theirs)
  theirs.save_pretrained(tmp_path / "theirs")
  found = interop.load_pretrained(tmp_path / "theirs")
  assert found.source.architecture.name == name
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  assert_close(ours(found, FEATURES), result(theirs, FEATURES))
  interop.save(found.model, found.params, tmp_path / "ours", "transformers")
  first, second_ = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
  assert {n: t.tobytes() for n, t in first.items()} == {n: t.tobytes() for n, t in second_.items()}
  again, info = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
  assert not info["missing_keys"] and not info["unexpected_keys"]
  torch.testing.assert_close(result(again.eval(), FEATURES), result(theirs, FEATURES), rtol=0, atol=1e-6)
  assert_same_params(interop.load(tmp_path / "ours")[1], found.params)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("seconds", [0.2, 0.35])
def test_the_settings_of_the_features_come_along_both_ways(seconds, normalize, tmp_path):
  """A clip of 0.2 s is padded to 40 frames, and one of 0.35 s fills 33."""
  theirs = transformers.ASTModel(transformers.ASTConfig(**SMALL)).eval()
  theirs.save_pretrained(tmp_path)
  extractor = transformers.ASTFeatureExtractor(
    max_length=40, num_mel_bins=16, mean=-3.0, std=2.0, do_normalize=normalize
  )
  extractor.save_pretrained(tmp_path)
  found, clip = interop.load_pretrained(tmp_path), tone(seconds)
  row = found.sound.row({"id": "r", "sound": (clip, 16000)}, None, None)
  expected = extractor(clip, sampling_rate=16000, return_tensors="np").input_values[0]
  np.testing.assert_allclose(row, expected, atol=1e-5)
  assert not [use for use in beside(found.source).uses if use.use == "not read" and use.fields]
  interop.save(found.model, found.params, tmp_path / "ours", preprocess=found.sound)
  assert interop.load_pretrained(tmp_path / "ours").sound == found.sound
  again = transformers.ASTFeatureExtractor.from_pretrained(tmp_path / "ours")
  np.testing.assert_allclose(again(clip, sampling_rate=16000, return_tensors="np").input_values[0], expected, atol=1e-6)


def test_what_does_not_fit_is_refused(tmp_path):
  theirs = transformers.ASTModel(transformers.ASTConfig(**SMALL))
  theirs.save_pretrained(tmp_path)
  transformers.ASTFeatureExtractor().save_pretrained(tmp_path)  # 1024 frames, and the model takes 40
  found = interop.load_pretrained(tmp_path)
  with pytest.raises(InteropError, match="max_length.*40"):
    _ = found.sound
  for name, value in (("padding_value", 1.0), ("sampling_rate", 11025), ("unheard_of", 1)):
    record = {"max_length": 40, "num_mel_bins": 16, name: value}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(record))
    with pytest.raises(InteropError, match=name):
      _ = interop.load_pretrained(tmp_path).sound
  (tmp_path / "processor_config.json").write_text(
    json.dumps({"feature_extractor": {"max_length": 40, "num_mel_bins": 16, "std": 2.0}, "processor_class": "P"})
  )
  assert interop.load_pretrained(tmp_path).sound.features.std == 2.0  # before the other file, as in transformers
  (tmp_path / "processor_config.json").unlink()
  (tmp_path / "preprocessor_config.json").unlink()
  with pytest.raises(InteropError, match="max_length"):
    _ = interop.load_pretrained(tmp_path).sound  # the defaults of the class are for another model
  for column in (Sound(features=LogMel()), Sound(features=Fbank(), seconds=3.0)):
    with pytest.raises(InteropError, match="cannot hold this column"):
      interop.save(found.model, found.params, tmp_path / "o", preprocess=column)
  with pytest.raises(InteropError, match="no settings of sounds"):
    interop.save(found.model, found.params, tmp_path / "o", "mmjax", preprocess=Sound())
  other = dataclasses.replace(found.model.config, positions="axes")
  with pytest.raises(InteropError, match="positions"):
    interop.save(other.build(), found.params, tmp_path / "o")

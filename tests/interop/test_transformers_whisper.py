"""transformers' Whisper and ours: the same logits and the same texts, both ways, from random weights."""

import json

import jax
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.errors import InteropError
from tests.interop.references import assert_same_params, assert_same_tensors, randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

IDS = dict(vocab_size=40, pad_token_id=2, eos_token_id=2, bos_token_id=2, decoder_start_token_id=3)
SMALL = dict(d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=4)
SMALL |= dict(encoder_ffn_dim=20, decoder_ffn_dim=24, num_mel_bins=5, max_source_positions=6, max_target_positions=14)
SMALL |= dict(begin_suppress_tokens=[4, 2], suppress_tokens=[9, 11]) | IDS
OTHER = dict(activation_function="relu", encoder_layers=2, decoder_layers=1, pad_token_id=0, tie_word_embeddings=False)
CASES = {"tied": SMALL, "scores apart": SMALL | OTHER}
SOUND = np.random.default_rng(0).standard_normal((3, 12, 5)).astype(np.float32)
TEXTS = np.random.default_rng(1).integers(4, 40, (3, 7)).astype(np.int32)


def made(case, name="WhisperForConditionalGeneration"):
  model = getattr(transformers, name)(transformers.WhisperConfig(**CASES[case])).eval()
  randomize(model)
  model.tie_weights()
  return model


def logits(model):
  with torch.no_grad():
    out = model(input_features=torch.tensor(SOUND).permute(0, 2, 1), decoder_input_ids=torch.tensor(TEXTS).long())
  return out.logits.numpy()


def ours(model, params):
  batch = {"audio": SOUND, "text": TEXTS}
  return np.asarray(jax.jit(lambda p, b: model.apply({"params": p}, b))(params, batch))


@pytest.mark.parametrize("case", CASES)
def test_both_ways(case, tmp_path):
  theirs = made(case)
  theirs.save_pretrained(tmp_path / "theirs")
  model, params = interop.load(tmp_path / "theirs")
  expected = logits(theirs)
  np.testing.assert_allclose(ours(model, params), expected, rtol=0, atol=2e-5 * np.abs(expected).max())
  interop.save(model, params, tmp_path / "ours")
  assert_same_tensors(tmp_path / "theirs/model.safetensors", tmp_path / "ours/model.safetensors")
  again, info = transformers.WhisperForConditionalGeneration.from_pretrained(
    tmp_path / "ours", output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  np.testing.assert_allclose(logits(again.eval()), expected, rtol=0, atol=1e-6)
  back, same = interop.load(tmp_path / "ours")
  assert back.config == model.config
  assert_same_params(same, params)


def test_the_model_without_its_head_is_read_and_its_encoder_alone(tmp_path):
  theirs = made("tied", "WhisperModel")
  theirs.save_pretrained(tmp_path)
  model, params = interop.load(tmp_path)
  batch = {"audio": SOUND, "text": TEXTS}
  with torch.no_grad():
    out = theirs(input_features=torch.tensor(SOUND).permute(0, 2, 1), decoder_input_ids=torch.tensor(TEXTS).long())
  expected = out.encoder_last_hidden_state.numpy()
  scores = (out.last_hidden_state @ theirs.decoder.embed_tokens.weight.T).detach().numpy()
  np.testing.assert_allclose(ours(model, params), scores, rtol=0, atol=2e-5 * np.abs(scores).max())
  found = model.apply({"params": params}, batch, method="encode")["audio"]
  np.testing.assert_allclose(found.tokens, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
  tower, alone = interop.load(tmp_path, tower="audio")
  np.testing.assert_array_equal(tower.apply({"params": alone}, SOUND).tokens, found.tokens)

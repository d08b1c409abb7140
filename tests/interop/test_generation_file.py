"""Every field of generation_config.json acts as in transformers, has no effect there, or is refused by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.generation_file import FILE, generation_fields, read_generation
from mmjax.interop.inspection import beside
from mmjax.interop.source import open_source
from mmjax.interop.without_effect import GENERATION
from mmjax.models.generate import choose, generate
from mmjax.models.next_word import GenerateConfig
from tests.interop.references import randomize, reference

pytestmark = pytest.mark.references
transformers = reference("transformers")
import torch  # noqa: E402  transformers is here, so this is

PROMPT = np.random.default_rng(0).integers(4, 50, (2, 5)).astype(np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("gpt2")
  size = dict(n_embd=16, n_layer=1, n_head=2, n_positions=18, vocab_size=50, eos_token_id=3, bos_token_id=None)
  model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size)).eval()
  randomize(model)
  model.tie_weights()
  model.save_pretrained(folder)
  return folder


def settings(folder, **values):
  (folder / FILE).write_text(json.dumps(values))
  return folder


def read(folder, prompt_length, positions):
  return read_generation(generation_fields(folder), prompt_length, positions)


def theirs(folder):
  model = transformers.AutoModelForCausalLM.from_pretrained(folder)
  prompt = torch.tensor(PROMPT).long()
  return model.generate(prompt, attention_mask=torch.ones_like(prompt)).numpy()


def ours(folder):
  found = interop.load_pretrained(folder)
  config = found.generation(PROMPT.shape[1])
  return np.asarray(generate(found.model, found.params, jnp.asarray(PROMPT), config=config).ids)


def assert_same_texts(folder):
  mine, expected = ours(folder), theirs(folder)
  np.testing.assert_array_equal(mine[:, : expected.shape[1]], expected)
  assert (mine[:, expected.shape[1] :] == interop.load(folder)[0].config.text.pad_id).all()
  return expected


def test_texts_are_those_of_transformers(folder):
  """Of the same length, ended by any of the end tokens, and then padded."""
  free = assert_same_texts(settings(folder))
  assert free.shape[1] == 18  # all positions, fewer than 20 new tokens
  assert assert_same_texts(settings(folder, eos_token_id=3, max_length=9)).shape[1] == 9
  assert assert_same_texts(settings(folder, eos_token_id=3, max_length=9, max_new_tokens=6)).shape[1] == 11
  first, second = int(free[0, 7]), int(free[1, 6])
  ended = assert_same_texts(settings(folder, eos_token_id=[first, second], pad_token_id=second))
  assert ended.shape[1] < 12 and interop.load(folder)[0].config.text.eos_id == first
  model = interop.load(folder)[0]
  assert model.config.text.pad_id == second
  (folder / FILE).unlink()
  assert interop.load(folder)[0].config.text.eos_id == 3
  assert_same_texts(folder)


def test_drawn_words_have_the_probabilities_of_transformers(folder):
  path = settings(folder, do_sample=True, temperature=0.7, top_k=9, top_p=0.8, max_new_tokens=2)
  config = read(path, 5, 18)
  assert config == GenerateConfig(max_new_tokens=2, temperature=0.7, top_k=9, top_p=0.8)
  scores = torch.tensor(np.random.default_rng(1).standard_normal((1, 50)), dtype=torch.float32)
  model = transformers.AutoModelForCausalLM.from_pretrained(path)
  prepared = model._prepare_generation_config(None)[0]
  processors = model._get_logits_processor(prepared, input_ids_seq_length=5)
  expected = torch.softmax(processors(torch.tensor(PROMPT[:1]).long(), scores), -1).numpy()[0]
  draws = 4000
  log_probs = jnp.broadcast_to(jax.nn.log_softmax(jnp.asarray(scores.numpy())), (draws, 50))
  words = choose(log_probs, config, jax.random.split(jax.random.key(0), draws))
  shares = np.bincount(np.asarray(words), minlength=50) / draws
  assert 1 < (expected > 0).sum() < 9
  np.testing.assert_array_equal(shares > 0, expected > 0)
  np.testing.assert_allclose(shares, expected, atol=5 * 0.5 / draws**0.5)


def test_the_defaults_are_those_of_transformers(folder):
  defaults = transformers.GenerationConfig._get_default_generation_params()
  config = read(settings(folder, do_sample=True), 5, 100)
  assert config == GenerateConfig(
    defaults["max_length"], defaults["temperature"], defaults["top_k"], defaults["top_p"]
  )  # max_length counts new tokens where the file has none
  assert read(settings(folder, top_k=5, min_p=0.5), 5, 18) == GenerateConfig(max_new_tokens=13)


VALUES = {
  "transformers_version": "4.1.0", "_from_model_config": True, "_commit_hash": "0", "use_cache": False,
  "cache_implementation": "dynamic", "bos_token_id": 7, "decoder_start_token_id": 7, "early_stopping": True,
  "length_penalty": 3.0, "return_dict_in_generate": False, "output_scores": True, "output_attentions": False,
  "output_hidden_states": True, "disable_compile": True, "is_assistant": False, "num_assistant_tokens": 3,
  "num_assistant_tokens_schedule": "heuristic", "assistant_confidence_threshold": 0.9,
}  # fmt: skip


def test_fields_without_effect_have_none_in_transformers(folder):
  assert set(VALUES) == set(GENERATION)
  plain = theirs(settings(folder, max_new_tokens=3))
  np.testing.assert_array_equal(theirs(settings(folder, max_new_tokens=3, **VALUES)), plain)
  np.testing.assert_array_equal(ours(folder), plain)


def test_inspect_says_what_is_used(folder):
  found = beside(open_source(settings(folder, do_sample=True, top_p=0.5, use_cache=True)))
  uses = {use.use: use.fields for use in found.uses if use.place == FILE}
  assert uses["used"] == "do_sample = True, top_p = 0.5"
  assert uses["without effect: an implementation with the same results"] == "use_cache = True"
  assert any(note.startswith("generation: GenerateConfig(") for note in found.notes)


@pytest.mark.parametrize(
  ("values", "said"),
  [
    (dict(num_beams=4), "num_beams is 4; mmjax supports only 1"),
    (dict(repetition_penalty=1.1), "repetition_penalty is 1.1; mmjax supports only 1.0"),
    (dict(no_repeat_ngram_size=3), "no_repeat_ngram_size is 3"),
    (dict(min_new_tokens=3), "min_new_tokens is 3"),
    (dict(do_sample=True, min_p=0.1), "min_p is 0.1"),
    (dict(do_sample=True, temperature=0.0), "temperature is 0.0, but must be above 0 with do_sample"),
    (dict(do_sample=True, top_p=1.5), r"top_p=1.5 must lie in \(0, 1\]"),
    (dict(suppress_tokens=[3]), "does not know the field 'suppress_tokens'"),
    (dict(bad_words_ids=[[3]]), "does not know the field 'bad_words_ids'"),
    (dict(forced_eos_token_id=3), "does not know the field 'forced_eos_token_id'"),
    (dict(max_length=5), "texts of 5 tokens with their prompt, which alone has 5"),
    (dict(eos_token_id="3"), "eos_token_id is '3', but must be the number of a token, or a list"),
  ],
)
def test_what_is_not_supported_is_refused(folder, values, said):
  with pytest.raises(interop.InteropError, match=f"{FILE}: .*{said}"):
    read(settings(folder, **values), 5, 18)

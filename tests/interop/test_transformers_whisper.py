"""transformers' Whisper and ours: the same logits and the same texts, both ways, from random weights."""

import json
from unittest import mock

import jax
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.convert import convert
from mmjax.interop.errors import InteropError
from mmjax.interop.inspection import beside
from mmjax.interop.source import open_source
from mmjax.interop.speech_settings import read_speech_generation
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


WORDS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|fr|>", "<|translate|>", "<|transcribe|>"]
WORDS += ["<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
FROM = 31  # number of the first of WORDS, after 31 tokens of texts
MANY = {"lang_to_id": {"<|en|>": FROM + 2, "<|fr|>": FROM + 3}, "is_multilingual": True, "return_timestamps": False}
MANY |= {"task_to_id": {"translate": FROM + 4, "transcribe": FROM + 5}, "no_timestamps_token_id": FROM + 8}
MANY |= {"decoder_start_token_id": FROM + 1, "suppress_tokens": [9, 11], "begin_suppress_tokens": [4, FROM]}
ONE = {name: value for name, value in MANY.items() if not name.endswith("_to_id")} | {"is_multilingual": False}
GENERATIONS = {
  "one language": (ONE, {}),
  "forced tokens": (ONE | {"forced_decoder_ids": [[1, FROM + 8]]}, {}),
  "a language is found": (MANY, {}),
  "a language is found, and a task is forced": (MANY | {"forced_decoder_ids": [[1, None], [2, FROM + 5]]}, {}),
  "a language is asked for": (MANY | {"forced_decoder_ids": [[1, None], [2, FROM + 5]]}, {"language": "fr"}),
  "a task is asked for": (MANY, {"task": "translate"}),
  "both are the default": (MANY | {"language": "fr", "task": "translate"}, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A checkpoint with a tokenizer, a feature extractor and settings of generation."""
  path = tmp_path_factory.mktemp("whisper")
  fields = SMALL | dict(max_source_positions=50, decoder_start_token_id=FROM + 1, suppress_tokens=None)
  fields |= dict(tie_word_embeddings=False)
  fields |= dict.fromkeys(("eos_token_id", "bos_token_id", "pad_token_id"), FROM)
  model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**fields)).eval()
  randomize(model)
  with torch.no_grad():
    for layer in model.model.decoder.layers:  # or else the sound changes no word
      for linear in (layer.encoder_attn.q_proj, layer.encoder_attn.v_proj, layer.encoder_attn.out_proj):
        linear.weight.mul_(5.0)
  model.save_pretrained(path)
  vocabulary = {chr(ord("a") + n): n for n in range(26)} | {"Ġ": 26, "Ġt": 27, "he": 28, "Ġthe": 29, "at": 30}
  merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("a", "t")]
  tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=merges)
  tokenizer.add_special_tokens({"additional_special_tokens": WORDS[1:]})
  assert tokenizer.convert_tokens_to_ids(WORDS) == list(range(FROM, FROM + 9))
  tokenizer.set_prefix_tokens()
  tokenizer.save_pretrained(path)
  transformers.WhisperFeatureExtractor(feature_size=5, chunk_length=1).save_pretrained(path)
  return path


def set_generation(folder, fields):
  (folder / "generation_config.json").write_text(json.dumps(fields | {"transformers_version": "5.23.0"}))


@pytest.fixture(scope="module")
def theirs(folder):
  return transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()


@pytest.mark.parametrize("case", ["one language", "a language is found, and a task is forced"])
def test_greedy_texts_are_those_of_transformers(case, folder, theirs):
  """With forced and suppressed tokens, and the language of each clip."""
  settings = GENERATIONS[case][0] | {"max_length": 12}
  set_generation(folder, settings)
  config = transformers.GenerationConfig.from_pretrained(folder)
  sound = np.random.default_rng(2).standard_normal((4, 100, 5)).astype(np.float32) * 3
  with torch.no_grad():
    found = theirs.generate(torch.tensor(sound).permute(0, 2, 1), generation_config=config).tolist()
  texts = interop.load_pretrained(folder).transcriber.write(sound)
  for row, text in zip(found, texts, strict=True):
    row = [one for one in row if one != FROM]
    assert text == row[len(row) - len(text) :] and text and not {9, 11} & set(text)
  assert len({tuple(text) for text in texts}) > 1  # the sound decides


@pytest.mark.parametrize("case", GENERATIONS)
def test_texts_begin_as_those_of_transformers(case, folder, theirs):
  settings, asked = GENERATIONS[case]
  set_generation(folder, settings)
  config = transformers.GenerationConfig.from_pretrained(folder)
  theirs._set_language_and_task(asked.get("language"), asked.get("task"), None, config)
  with mock.patch.object(theirs, "detect_language", lambda **_: torch.tensor([-1])):
    prompt = theirs._retrieve_init_tokens(torch.zeros(1, 5, 100), 1, config, theirs.config, 100, {})[0].tolist()
  ours = read_speech_generation(open_source(folder)).prompt(**asked)
  assert [-1 if one is None else one for one in ours] == prompt


def test_tokens_are_those_of_transformers(folder):
  texts = ["the cat at the hat", "zebra", "", "Caf\u00e9 the", "the " * 20]
  ids = interop.load_pretrained(folder).tokenizer(texts)
  tokenizer = transformers.WhisperTokenizer.from_pretrained(folder, pad_token="<|endoftext|>")
  expected = tokenizer(texts, padding="max_length", truncation=True, max_length=14)["input_ids"]
  assert ids.tolist() == expected and len(set(ids[0])) > 3


@pytest.mark.parametrize(
  ("file", "field", "value"),
  [
    ("generation_config.json", "return_timestamps", True),
    ("generation_config.json", "num_beams", 2),
    ("generation_config.json", "suppress_tokens", [-1]),
    ("generation_config.json", "forced_decoder_ids", [[2, 3]]),
    ("generation_config.json", "eos_token_id", 5),
    ("generation_config.json", "no_repeat_ngram_size", 3),
    ("preprocessor_config.json", "hop_length", 80),
    ("preprocessor_config.json", "feature_size", 128),
    ("preprocessor_config.json", "chunk_length", 30),
    ("preprocessor_config.json", "do_normalize", True),
  ],
)
def test_what_is_not_supported_is_refused(file, field, value, folder, tmp_path):
  for path in folder.iterdir():
    (tmp_path / path.name).symlink_to(path)
  set_generation(folder, ONE)
  record = json.loads((folder / file).read_text()) | {field: value}
  (tmp_path / file).unlink()
  (tmp_path / file).write_text(json.dumps(record))
  with pytest.raises(InteropError, match=f"{file}.*{field}"):
    interop.load_pretrained(tmp_path).transcriber  # noqa: B018  it is made here


def test_a_language_or_a_task_that_is_not_there_is_refused(folder):
  set_generation(folder, MANY)
  settings = read_speech_generation(open_source(folder))
  with pytest.raises(InteropError, match="no language 'de'; the codes of its languages are en, fr"):
    settings.prompt(language="de")
  with pytest.raises(InteropError, match="no task 'sing'; its tasks are translate, transcribe"):
    settings.prompt(task="sing")
  set_generation(folder, ONE)
  with pytest.raises(InteropError, match="no language 'en'; it has one language: leave it out"):
    read_speech_generation(open_source(folder)).prompt(language="en")


def test_a_converted_folder_has_all_files(folder, tmp_path):
  set_generation(folder, MANY)
  for form in ("transformers", "mmjax"):
    convert(folder, tmp_path / form, form)
    names = {path.name for path in (tmp_path / form).iterdir()}
    assert {"generation_config.json", "preprocessor_config.json", "tokenizer.json"} <= names
    found = interop.load_pretrained(tmp_path / form)
    assert found.transcriber.decode([29, 2, FROM, FROM + 2]) == "thec"
    assert read_speech_generation(found.source) == read_speech_generation(open_source(folder))
  extractor = transformers.WhisperFeatureExtractor.from_pretrained(tmp_path / "transformers")
  assert extractor.feature_size == 5 and extractor.n_samples == 16_000
  uses = beside(open_source(folder))
  assert not any("refused" in note for note in uses.notes) and len(uses.notes) == 3
  assert not [use for use in uses.uses if use.use.startswith("not read") and use.place.endswith(".json")]

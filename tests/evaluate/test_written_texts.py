"""Texts written from texts, and the bigrams that language models are compared with."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import DataConfig, DataError, Source, Text, TokenizerConfig, concept_number, make_source, make_tokenizer
from mmjax.data.columns.sound import Sound
from mmjax.data.sound.features import LogMel
from mmjax.errors import UserError
from mmjax.evaluate import evaluate
from mmjax.evaluate.edits import edit_distance, error_rate
from mmjax.evaluate.evaluator import Shared, measured
from mmjax.evaluate.ngrams import Bigrams
from mmjax.evaluate.results import lower_is_better
from mmjax.evaluators import RecognizedTexts, WrittenTexts
from mmjax.evaluators.written_texts import text_scores
from mmjax.nn.cache import Cache
from mmjax.objectives import Caption, Ctc, TargetText
from mmjax.parallel.mesh import ParallelConfig, make_mesh
from mmjax.run import Run
from mmjax.train.loop import fitted
from mmjax.types import Encoded
from tests.interop.references import reference

sys.path.insert(0, str(Path(__file__).parent))
from knowing import KnowingExperiment, evaluation_config

WORDS = ("One", "two", "three", "four", "five", "six", "seven", "eight")


@dataclasses.dataclass(frozen=True)
class Turned(Source):
  """Five words of which each text has the last five, and the same words backwards."""

  @property
  def columns(self):
    return {"text": Text("said"), "target": Text("turned")}

  def open(self, split, reading):
    texts = [[*WORDS[n:], *WORDS[:n]][:5] for n in range(len(WORDS))]
    return [
      {"id": str(n), "concept": concept_number(str(n)), "said": " ".join(words), "turned": "  ".join(words[::-1])}
      for n, words in enumerate(texts)
    ]


class Turner(nn.Module):
  """Says the true target of each text, but of the first text that of the second."""

  config: Any
  texts: tuple[tuple[int, ...], ...]
  targets: tuple[tuple[int, ...], ...]

  def encode(self, batch, *, rng=None):
    far = jnp.abs(batch["text"][:, None] - jnp.array(self.texts)[None]).sum(-1)
    row = jnp.maximum(far.argmin(1), 1)[:, None].astype(jnp.float32)
    return {"text": Encoded(row[:, None], jnp.ones((len(row), 1), bool), row)}

  def decode(self, ids, context, *, rng=None, cache=None, text=None):
    row = context.pooled if context is not None else cache.layers[0]
    said = jnp.array(self.targets)[row[:, 0].astype(jnp.int32)]
    place = jnp.minimum(cache.length[:, None] + 1 + jnp.arange(ids.shape[1])[None], said.shape[1] - 1)
    logits = 20 * jax.nn.one_hot(jnp.take_along_axis(said, place, axis=1), self.config.text.vocab_size)
    return logits, Cache(cache.length + ids.shape[1], (row,))

  @nn.nowrap
  def empty_cache(self, batch_size, length):
    return Cache(jnp.zeros(batch_size, jnp.int32), (jnp.zeros((batch_size, 1)),))


HEARD = Sound(features=LogMel(mels=4), seconds=0.02)


class Heard(Turned):
  """The same, but the text is a tone of its own pitch."""

  @property
  def columns(self):
    return {"audio": HEARD, "target": Text("turned")}

  def open(self, split, reading):
    waves = [np.sin(np.arange(320) * (0.2 + 0.3 * n)).astype(np.float32) for n in range(len(WORDS))]
    return [one | {"sound": (wave, 16_000)} for one, wave in zip(super().open(split, reading), waves, strict=True)]


class Hearer(Turner):
  """Says the same of tones."""

  def encode(self, batch, *, rng=None):
    return {"audio": super().encode({"text": batch["audio"].reshape(len(batch["audio"]), -1)})["text"]}


class Speller(Hearer):
  """Scores the tokens of the same, each for two frames, with a blank between them."""

  def symbol_logits(self, encoded):
    said, vocabulary = jnp.array(self.targets)[encoded.pooled[:, 0].astype(jnp.int32)], self.config.text
    said = jnp.where(jnp.isin(said, jnp.asarray(vocabulary.special_ids)), vocabulary.pad_id, said)
    frames = jnp.stack([said, said, jnp.full_like(said, vocabulary.pad_id)], axis=2).reshape(len(said), -1)
    return 20 * jax.nn.one_hot(frames, vocabulary.vocab_size)


def made(source, objective, model, inputs, folder):
  """A run whose model knows the inputs of all records."""
  tokenizer = TokenizerConfig(vocab_size=320, max_length=20, bos_token="<bos>")
  data = DataConfig(source=source, dir=str(folder), tokenizer=tokenizer)
  tokenizer, records = make_tokenizer(data), make_source(data, "validation")
  experiment = fitted(
    KnowingExperiment(data, (objective,), evaluation_config(batch_size=8)), tokenizer, num_records={"": 8}
  )
  rows = lambda values: tuple(map(tuple, np.reshape(values, (8, -1)).tolist()))
  known = rows(inputs(tokenizer, records)), rows(tokenizer([r["turned"] for r in records]))
  mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
  return Run(experiment, Path("runs/turned"), model(experiment.model, *known), {}, tokenizer, mesh, 7)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  read = lambda tokenizer, records: tokenizer([r["said"] for r in records])
  return made(Turned(), TargetText(), Turner, read, tmp_path_factory.mktemp("data"))


def test_transcripts_of_sounds_have_error_rates(tmp_path):
  """The first one is that of the second: a word too many, and one too few, of 40."""
  heard = lambda tokenizer, records: [HEARD.row(r, None, None) for r in records]
  run = made(Heard(), TargetText(source="audio"), Hearer, heard, tmp_path)
  (result,) = evaluate(run)
  assert measured(run.experiment) == [f"heard_texts/{name}" for name in ("exact", "bleu4", "wer", "cer")]
  metrics, chance = result["metrics"], result["chance"]
  assert result["task"] == "transcription" and metrics["exact"] == 7 / 8 and metrics["wer"] == 2 / 40
  assert 0 < metrics["cer"] < 0.05 and chance["wer"] > 0.3 and chance["cer"] > 0.2
  records = make_source(run.experiment.data, "validation")
  assert run.transcribe([records[3]["sound"]]) == [" ".join(records[3]["turned"].lower().split())]
  assert run.transcribe([]) == []
  with pytest.raises(DataError, match="the limit is 0.02 s"):
    run.transcribe([(np.zeros(400, np.float32), 16_000)])


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_recognized_by_ctc_have_error_rates(beams, tmp_path):
  """As above: the first one is that of the second."""
  heard = lambda tokenizer, records: [HEARD.row(r, None, None) for r in records]
  run = made(Heard(), Ctc(text="target"), Speller, heard, tmp_path)
  evaluators = {"recognized": RecognizedTexts(beams=beams, length_bonus=0.1 * (beams > 1))}
  evaluation = dataclasses.replace(run.experiment.evaluation, evaluators=evaluators)
  run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, evaluation=evaluation))
  (result,) = evaluate(run)
  assert measured(run.experiment) == [f"heard_recognized/{name}" for name in ("wer", "cer", "exact")]
  assert result["metrics"]["exact"] == 7 / 8 and result["metrics"]["wer"] == 2 / 40
  assert result["chance"]["wer"] > 0.3
  assert lower_is_better("heard_recognized/wer") and not lower_is_better("vqa/answer")
  records = make_source(run.experiment.data, "validation")
  texts = [" ".join(record["turned"].lower().split()) for record in records]
  assert run.transcribe([record["sound"] for record in records]) == [texts[1], *texts[1:]]
  (section,) = evaluators["recognized"].sections(run, Shared())
  assert section.html.count("<audio") == 8 and section.html.count("right</b>") == 7


def test_a_run_that_writes_no_sounds_down_says_so(run):
  with pytest.raises(UserError, match="has no objective that writes down sounds: train one with --objectives ctc"):
    run.transcribe([(np.zeros(9, np.float32), 16_000)])
  with pytest.raises(TypeError, match="put the one sound in a list"):
    run.transcribe("a.wav")


def test_edits_are_counted_by_the_definition():
  rng = np.random.default_rng(0)

  def slowly(a, b):
    if not a or not b:
      return len(a) + len(b)
    return min(slowly(a[1:], b) + 1, slowly(a, b[1:]) + 1, slowly(a[1:], b[1:]) + (a[0] != b[0]))

  for _ in range(30):
    a, b = (rng.integers(3, size=rng.integers(6)).tolist() for _ in range(2))
    assert edit_distance(a, b) == slowly(a, b)
  assert error_rate([["a"], []], [["a", "b"], ["c"]]) == 2 / 3
  assert error_rate([[]], [[]]) == 0.0 and error_rate([["a"]], [[]]) == float("inf")


@pytest.mark.references
def test_error_rates_are_those_of_jiwer():
  jiwer, rng = reference("jiwer"), np.random.default_rng(0)
  texts = [[" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(20)] for _ in range(2)]
  written, targets = texts
  words = error_rate([text.split() for text in written], [text.split() for text in targets])
  assert words == pytest.approx(jiwer.wer(targets, written), rel=1e-12)
  assert error_rate(written, targets) == pytest.approx(jiwer.cer(targets, written), rel=1e-12)


@pytest.mark.parametrize("beams", [1, 2])
def test_texts_are_compared_with_their_targets_and_with_those_of_others(run, beams):
  (result,) = evaluate(with_beams(run, beams))
  assert measured(run.experiment) == ["turned_texts/exact", "turned_texts/bleu4"]
  assert result["dataset"] == "turned_texts" and result["n"] == 8
  assert result["metrics"]["exact"] == 7 / 8 and 0.8 < result["metrics"]["bleu4"] < 1.0
  assert result["chance"]["exact"] <= 1 / 8 and result["chance"]["bleu4"] < 0.8


def with_beams(run, beams):
  evaluators = run.experiment.evaluation.evaluators | {"written_texts": WrittenTexts(beams=beams)}
  evaluation = dataclasses.replace(run.experiment.evaluation, evaluators=evaluators)
  return dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, evaluation=evaluation))


def test_a_target_that_the_tokenizer_cuts_is_not_matched_by_its_beginning(run):
  cut = dataclasses.replace(run.tokenizer.config, max_length=5)
  short = type(run.tokenizer)(run.tokenizer._engine, cut)
  model = dataclasses.replace(run.model, texts=tuple(map(tuple, short([" ".join(WORDS)] * 8).tolist())))
  found = WrittenTexts().run(dataclasses.replace(run, tokenizer=short, model=model), SharedNothing())
  assert found[0]["metrics"]["exact"] == 0.0


class SharedNothing:
  def once(self, key, compute):
    return compute()


def test_case_and_spaces_are_folded_and_nothing_else():
  assert text_scores(["a b c d", "a b c d."], ["a b c d", "a b c d"])["exact"] == 0.5


@pytest.mark.parametrize("beams", [0, -1])
def test_no_beams_are_refused(beams):
  with pytest.raises(ValueError, match=f"WrittenTexts.beams is {beams}"):
    WrittenTexts(beams=beams)


def test_language_modelling_leaves_texts_with_an_input_alone(run):
  language = run.experiment.evaluation.evaluators["language"]
  alone = dataclasses.replace(run.experiment, objectives=(Caption(image=False),))
  assert not language.applies(run.experiment) and language.applies(alone)


def test_bigrams_by_the_formula():
  ids = np.array([[1, 2, 3, 2, 0], [1, 2, 2, 0, 0]])  # pairs: 12 23 32 12 22
  model = Bigrams(ids, pad_id=0, vocab_size=5)
  single = np.array([0, 0, 4, 1, 0]) + 1  # 2 follows four times, 3 once; every count one more
  p = single / single.sum()
  after_two = {3: (1 + 2 * p[3]) / 4, 2: (1 + 2 * p[2]) / 4, 1: 2 * p[1] / 4}
  expected = -np.log([(2 + p[2]) / 3, after_two[3], p[2], after_two[2], after_two[1]])
  found = model.losses(np.array([[1, 2, 3, 0, 0], [4, 2, 2, 1, 0]]), pad_id=0)
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_bigrams_sum_to_one_after_every_token():
  rng = np.random.default_rng(0)
  model = Bigrams(rng.integers(1, 9, (20, 7)), pad_id=0, vocab_size=10)
  for last in range(1, 10):
    pairs = np.stack([np.full(10, last), np.arange(10)], axis=1)
    assert np.exp(-model.losses(pairs, pad_id=-1)).sum() == pytest.approx(1.0)

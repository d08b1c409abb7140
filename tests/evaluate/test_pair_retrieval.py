"""Retrieval between sounds and texts; notes of sound fonts."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import (
  Caption,
  DataConfig,
  DataError,
  Image,
  Instruments,
  Label,
  LogMel,
  Reading,
  Sound,
  Source,
  TokenizerConfig,
  make_source,
  make_tokenizer,
  sound_fonts,
)
from mmjax.evaluate import evaluate
from mmjax.evaluate.evaluator import Shared, applying, measured
from mmjax.evaluators import ImageTextRetrieval, PairRetrieval
from mmjax.experiment import Experiment
from mmjax.objectives import Contrastive
from mmjax.parallel.mesh import ParallelConfig, make_mesh
from mmjax.report.rows import rows
from mmjax.run import Run
from mmjax.types import Encoded

sys.path.insert(0, str(Path(__file__).parent))
from knowing import KnowingExperiment, evaluation_config

NAMES = ("low", "middle", "high")
HEARING = Contrastive(between=("audio", "text"))
HEARD = Sound(features=LogMel(mels=4), seconds=0.02)


@dataclasses.dataclass(frozen=True)
class Named(Source):
  """Two tones for each of three names."""

  @property
  def columns(self):
    return {"audio": HEARD, "text": Caption()}

  def open(self, split, reading):
    tones = [np.sin(np.arange(320) * (0.2 + 0.15 * n)).astype(np.float32) for n in range(6)]
    return [
      {"id": f"tone {n}", "concept": n // 2, "captions": {"name": [NAMES[n // 2]]}, "sound": (tone, 16_000)}
      for n, tone in enumerate(tones)
    ]


class Matcher(nn.Module):
  """Knows the name of every tone, but takes the last one for the first name."""

  config: Any
  sounds: tuple[tuple[float, ...], ...]
  texts: tuple[tuple[int, ...], ...]

  def encode(self, batch, *, rng=None):
    return {name: Encoded(rows, jnp.ones(rows.shape[:2], bool), rows) for name, rows in batch.items()}

  def project(self, encoded):
    rows = {name: each.tokens.reshape(len(each.tokens), -1) for name, each in encoded.items()}
    name = jnp.abs(rows.pop("text")[:, None] - jnp.asarray(self.texts)[None]).sum(-1).argmin(1)
    return {"text": jax.nn.one_hot(name, 3)} | {heard: self._said(sounds) for heard, sounds in rows.items()}

  def _said(self, sounds):
    tone = jnp.abs(sounds[:, None] - jnp.asarray(self.sounds)[None]).sum(-1).argmin(1)
    return jax.nn.one_hot(jnp.where(tone == 5, 0, tone // 2), 3)


def made(folder, counts, terms=(HEARING,), **columns):
  tokenizer = TokenizerConfig(vocab_size=300, max_length=8)
  data = DataConfig(source=Named(), columns=columns, dir=str(folder), tokenizer=tokenizer)
  records = make_source(data, "validation")
  tokenizer = make_tokenizer(data, records)
  evaluation = dataclasses.replace(evaluation_config(batch_size=8), counts=counts)
  experiment = KnowingExperiment(data, terms, evaluation)
  known = [HEARD.row(record, None, None).reshape(-1).tolist() for record in records], tokenizer(list(NAMES)).tolist()
  model = Matcher(experiment.model, *(tuple(map(tuple, rows)) for rows in known))
  return Run(experiment, folder, model, {}, tokenizer, make_mesh(ParallelConfig(), jax.devices()[:1]), 7)


def test_sounds_find_their_names_and_names_their_sounds(tmp_path):
  run = made(tmp_path, "concept")
  found, control = evaluate(run)
  assert measured(run.experiment)[:2] == ["named/text_retrieval_recall@1", "named/text_retrieval_recall@5"]
  metrics = found["metrics"]
  assert metrics["text_retrieval_recall@1"] == 5 / 6
  assert found["chance"]["text_retrieval_recall@1"] == pytest.approx(1 / 3)
  assert metrics["audio_retrieval_recall@1"] == 2 / 3  # the third sound of the first name is another's
  assert found["gallery"] == 3 and not found["control"] and control["control"]
  assert [row.title.rpartition(", ")[2] for row in rows([found])] == ["audio to text", "text to audio"]
  (section,) = PairRetrieval().sections(run, Shared())
  assert section.html.count("<audio") == 6 and section.html.count('class="good"') >= 5


def test_without_concepts_a_sound_must_find_its_own_text(tmp_path):
  found, _ = evaluate(made(tmp_path, "own"))
  assert found["gallery"] == 6 and found["metrics"]["text_retrieval_recall@1"] == 0.0  # equal names tie


def test_every_pair_that_is_compared_has_its_results(tmp_path):
  terms = [Contrastive(between=pair) for pair in (("audio", "text"), ("again", "text"), ("audio", "text"))]
  run = made(tmp_path, "concept", tuple(terms), audio=HEARD, text=Caption(), again=HEARD)
  first, _, second, control = evaluate(run)
  assert (second["dataset"], control["dataset"]) == ("named_again_text", "named_again_text_shuffled")
  assert "named_again_text/again_retrieval_recall@1" in measured(run.experiment)
  assert second["metrics"]["text_retrieval_recall@1"] == first["metrics"]["text_retrieval_recall@1"] == 5 / 6
  assert [section.anchor for section in PairRetrieval().sections(run, Shared())] == ["pairs", "pairs_again_text"]


def test_terms_between_images_and_texts_have_their_own_evaluator():
  applied = lambda data, *terms: set(map(type, applying(Experiment(data=data, objectives=terms))))
  pair, audio = {"image": Image(), "text": Caption()}, Contrastive(between=("audio", "text"))
  for more in ({}, {"group": Label("group")}, {"image2": Image()}, {"audio": HEARD}):
    for columns in (pair | more, dict(reversed((pair | more).items()))):
      data = DataConfig(source=Named(), columns=columns)
      found = applied(data, Contrastive(), Contrastive(between=("image", "text2")))
      assert ImageTextRetrieval in found and PairRetrieval not in found, columns
      assert {ImageTextRetrieval, PairRetrieval} <= applied(data, Contrastive(), audio) or "audio" not in more
      assert ImageTextRetrieval not in applied(data, audio)


class Synth:
  """tinysoundfont.Synth that plays one sample value for a program and key."""

  def __init__(self, samplerate):
    self.level = 0.0

  def sfload(self, path, gain):
    return 1

  def program_select(self, channel, font, bank, program):
    self.program = program

  def noteon(self, channel, key, velocity):
    self.level = (self.program + key / 100) / 200

  def noteoff(self, channel, key):
    pass

  def sounds_off(self):
    self.level = 0.0

  def generate(self, samples):
    return np.full(2 * samples, self.level, np.float32).tobytes()


def test_notes_are_rendered_once_and_fonts_are_held_out(tmp_path, monkeypatch):
  monkeypatch.setattr(sound_fonts, "_library", lambda: SimpleNamespace(Synth=Synth))
  folder = tmp_path / "usr/share/sounds/sf2"
  folder.mkdir(parents=True)
  for name in sound_fonts.FONTS.values():
    (folder / name).write_bytes(b"font")
  source, reading = (
    Instruments(root=str(tmp_path), keys=(60, 64), test_keys=(62,), seconds=0.05),
    Reading(dir=str(tmp_path / "data")),
  )
  train, test = source.open("train", reading), source.open("validation", reading)
  assert (len(train), len(test)) == (2 * 96 * 2, 96)
  oboe = next(record for record in test if record["captions"] == {"name": ["oboe"]})
  assert oboe["concept"] == 68 and oboe["group"] == "reed" and oboe["id"] == "fluid/oboe/62"
  samples, rate = oboe["sound"]
  assert rate == 16_000 and len(samples) == 800
  np.testing.assert_allclose(np.median(samples), 68.62 / 200, rtol=1e-3)
  monkeypatch.setattr(sound_fonts, "_library", None)  # what was rendered is read
  again = source.open("train", reading)
  np.testing.assert_array_equal(again[3]["sound"][0], train[3]["sound"][0])
  shuffled = dataclasses.replace(source, shuffled=True).open("train", reading)
  assert [r["captions"] for r in shuffled] != [r["captions"] for r in train]
  (folder / "FluidR3_GM.sf2").unlink()
  with pytest.raises(DataError, match="install Debian's fluid-soundfont-gm"):
    source.open("validation", reading)
  with pytest.raises(ValueError, match="'csound' is for training and held out"):
    Instruments(held_out=("csound",))

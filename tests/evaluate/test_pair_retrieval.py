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
  Instruments,
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
from mmjax.evaluate.evaluator import Shared, measured
from mmjax.evaluators import PairRetrieval
from mmjax.evaluators.pair_retrieval import compared
from mmjax.objectives import Contrastive
from mmjax.parallel.mesh import ParallelConfig, make_mesh
from mmjax.report.rows import rows
from mmjax.run import Run
from mmjax.types import Encoded

sys.path.insert(0, str(Path(__file__).parent))
from knowing import KnowingExperiment, evaluation_config

NAMES = ("low", "middle", "high")
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
    sounds, texts = (encoded[name].tokens.reshape(len(encoded[name].tokens), -1) for name in ("audio", "text"))
    tone = jnp.abs(sounds[:, None] - jnp.asarray(self.sounds)[None]).sum(-1).argmin(1)
    said = jnp.where(tone == 5, 0, tone // 2)
    name = jnp.abs(texts[:, None] - jnp.asarray(self.texts)[None]).sum(-1).argmin(1)
    return {"audio": jax.nn.one_hot(said, 3), "text": jax.nn.one_hot(name, 3)}


def made(folder, counts):
  tokenizer = TokenizerConfig(vocab_size=300, max_length=8)
  data = DataConfig(source=Named(), dir=str(folder), tokenizer=tokenizer)
  records = make_source(data, "validation")
  tokenizer = make_tokenizer(data, records)
  evaluation = dataclasses.replace(evaluation_config(batch_size=8), counts=counts)
  experiment = KnowingExperiment(data, (Contrastive(between=("audio", "text")),), evaluation)
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


def test_terms_between_images_and_texts_have_their_own_evaluator():
  between = lambda *terms: compared(SimpleNamespace(objectives=terms))
  assert between(Contrastive(), Contrastive(between=("image", "text2"))) is None
  assert between(Contrastive(), Contrastive(between=("text", "audio"))) == ("text", "audio")


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

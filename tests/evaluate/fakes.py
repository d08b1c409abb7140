"""A Run without a network: what it embeds is a hash of what is shown, plus as much noise as wanted."""

import functools
import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data import DataConfig, Emoji
from mmjax.evaluators.config import EvaluationConfig
from mmjax.objectives import Contrastive

DIM = 32


@dataclass(frozen=True)
class FakeImageConfig:
  width: int = 192
  depth: int = 4
  patch_size: int = 8
  image_size: int = 48


@dataclass(frozen=True)
class FakeModelConfig:
  image: FakeImageConfig = FakeImageConfig()


@dataclass(frozen=True)
class FakeExperiment:
  data: DataConfig = DataConfig()
  evaluation: EvaluationConfig = EvaluationConfig()
  model: FakeModelConfig = FakeModelConfig()
  objectives: tuple[Contrastive, ...] = (Contrastive(),)

  def by_stream(self) -> dict[str, "FakeExperiment"]:
    return {"": self}


@dataclass
class FakeRun:
  """`meanings`: what a picture (by its pixels) or a text means; things not listed mean themselves.

  noise 0 understands everything; a large noise is chance. `embedded` counts pictures and texts.
  """

  meanings: dict[Any, Any]
  noise: float = 0.0
  experiment: FakeExperiment = FakeExperiment()
  workdir: Path = Path("runs/fake")
  step: int = 1200
  embedded: dict[str, int] = field(default_factory=lambda: {"image": 0, "text": 0})
  collapsed: bool = False

  def by_stream(self) -> dict[str, "FakeRun"]:
    return {"": self}

  def encode_image(self, images: Any) -> np.ndarray:
    self.embedded["image"] += len(images)
    return self._rows([fingerprint(image) for image in images[0 : len(images)]])

  def encode_text(self, strings: Any) -> np.ndarray:
    self.embedded["text"] += len(strings)
    return self._rows(list(strings))

  def _rows(self, keys: list[Any]) -> np.ndarray:
    rows = np.stack([self._row(key) for key in keys])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

  def _row(self, key: Any) -> np.ndarray:
    if self.collapsed:
      return np.ones(DIM, np.float32)
    meaning = vector(self.meanings.get(key, key))
    return meaning + np.float32(self.noise) * vector(("noise", key))


def fingerprint(image: Any) -> str:
  return hashlib.sha1(image.convert("RGBA").tobytes()).hexdigest()


def vector(key: Any) -> np.ndarray:
  seed = int.from_bytes(hashlib.sha1(repr(key).encode()).digest()[:8], "big")
  return np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)


@functools.cache
def data_dir() -> tempfile.TemporaryDirectory:
  """Removed when the tests end."""
  return tempfile.TemporaryDirectory(prefix="mmjax-emoji-")


def emoji_run(limit: int | None = 60, noise: float = 0.0, **more: Any) -> FakeRun:
  """A FakeRun that knows what every emoji picture shows and what its name means."""
  from mmjax.data.images.decoding import decode
  from mmjax.evaluate.emoji import base_records

  data = DataConfig() if limit is None else DataConfig(source=Emoji(limit=limit), dir=data_dir().name)
  meanings: dict[Any, Any] = {}
  for records in base_records(data.dir, limit).values():
    for record in records:
      meanings[fingerprint(decode(record["image"]))] = record["concept"]
      meanings[record["captions"]["name"][0]] = record["concept"]
  return FakeRun(meanings, noise, FakeExperiment(data), **more)

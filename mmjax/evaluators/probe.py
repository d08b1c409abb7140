"""Probes of a frozen tower: a linear classifier, nearest neighbours, and few examples per class."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mmjax.configs import to_json
from mmjax.data.errors import DataError
from mmjax.data.places import spread
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, validation_examples
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.metrics import commonest_share
from mmjax.evaluate.probe import Features, probes
from mmjax.evaluate.results import Result, Table
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run

PROBES = Table("probe", "Probes of the frozen model")


@dataclasses.dataclass(frozen=True)
class Probe(Evaluator):
  """Classification by the features of a frozen tower, learned from training examples and tested on validation ones.

  The strength of the linear probe's penalty is chosen on a fifth of the training examples. Chance is the commonest
  class for all. The features are kept in WORKDIR/features.
  """

  tower: str = "image"
  """Name of the tower. Its pooled vector is the features."""
  label: str = "label"
  """Name of the column with the classes (ClassLabel)."""
  neighbours: int = 20
  """Number of neighbours that vote."""
  shots: tuple[int, ...] = (1, 2, 4, 8, 16)
  """Numbers of examples per class for the few-shot probes. Those that no class has are left out."""
  draws: int = 3
  """Number of random draws of the examples of a few-shot probe. Their mean and standard deviation are given."""
  max_examples: int = 50_000
  """Largest number of training examples, evenly spread over them."""

  def applies(self, experiment: Experiment) -> bool:
    return {self.tower, self.label} <= set(entries(experiment.data))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    name, kinds = experiment.data.source.title, ("acc1", "mean_per_class_recall")
    probes = ["linear", "neighbours", *(f"{shots}_shot" for shots in self.shots)]
    return [f"{name}_{probe}/{kind}" for probe in probes for kind in kinds]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)
    if self.label in run.fitted and len(run.fitted[self.label]["classes"]) < 2:
      raise DataError("the training data has one class only, and a probe tells two at least apart. Add images.")

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = validation_examples(run)
    train, test = self._features(run, "train"), self._features(run, "validation")
    found = probes(train, test, neighbours=self.neighbours, shots=self.shots, draws=self.draws)
    return [self._result(run, examples, each.name, each.title, test, each.metrics) for each in found]

  def _result(
    self, run: Run, examples: Examples, name: str, title: str, test: Features, found: dict[str, float]
  ) -> Result:
    classes = len(np.unique(test.labels))
    chance = {"acc1": commonest_share(test.labels), "mean_per_class_recall": 1 / classes}
    title = f"{examples.title}: {title}"
    return make_result(
      run, f"{examples.name}_{name}", "probe", title, test.labels, (found, chance), table=PROBES, classes=classes
    )

  def _features(self, run: Run, split: str) -> Features:
    """The features of a split, read from the workdir if they are there."""
    examples = validation_examples(run) if split == "validation" else self._training_examples(run)
    path = self._path(run, split, examples)
    if path.exists():
      with np.load(path) as kept:
        return Features(kept["rows"], kept["labels"])
    found = list(over_batches(run, _Pooled(self.tower), batches(run, examples), (self.tower,), (self.label,)))
    rows = np.concatenate([pooled for _, pooled in found]).astype(np.float32)
    features = Features(rows, np.concatenate([kept[self.label] for kept, _ in found]))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **features._asdict())
    return features

  def _path(self, run: Run, split: str, examples: Examples) -> Path:
    fields = {"data": to_json(run.experiment.data), "step": run.step, "tower": self.tower, "label": self.label}
    fields |= {
      "params": _checksum(run.params),
      "examples": len(examples),
      "fingerprint": getattr(examples.records, "fingerprint", None),
    }
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]
    return run.workdir / "features" / f"{split}-{digest}.npz"

  def _training_examples(self, run: Run) -> Examples:
    from mmjax.data import make_source

    source = make_source(run.experiment.data, "train")
    return dataclasses.replace(validation_examples(run), records=_Some(source, spread(len(source), self.max_examples)))


def _checksum(params: Any) -> int:
  """Number that changes with the parameters: averages of runs have the steps and data of the runs."""
  found = 0
  for leaf in jax.tree.leaves(params):
    found = zlib.crc32(np.ascontiguousarray(jax.device_get(leaf)).tobytes(), found)
  return found


class _Some(Sequence):
  """Some records of a source, each read when it is asked for."""

  def __init__(self, source: Any, places: Sequence[int]):
    self._source, self._places = source, places
    self.fingerprint = getattr(source, "fingerprint", None)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: Any) -> Any:
    return self._source[self._places[index]]


@dataclasses.dataclass(frozen=True)
class _Pooled:
  """Pooled vectors of a tower, as a function of the model. Equal instances share a compilation."""

  tower: str

  def __call__(self, model: Any, batch: Any) -> Any:
    return model.encode(batch)[self.tower].pooled

"""Scores of a model of several towers with some modalities only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.outcome import outcome
from mmjax.evaluate.results import MODALITIES, Result
from mmjax.evaluate.task import make_result

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class SomeModalities(Evaluator):
  """Scores with each modality alone, and with each one left out, for a model that examples may lack modalities of."""

  def applies(self, experiment: Experiment) -> bool:
    return outcome(experiment) is not None and experiment.model.chooses  # type: ignore[attr-defined]

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    found: Any = outcome(experiment)
    return [f"{shown_name(experiment.data)}_{name}/{found.metric}" for name in subsets(_towers(experiment))]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples, names = shown_examples(run, shared), subsets(_towers(run.experiment))
    found: Any = outcome(run.experiment)
    ask = With(tuple(names.values()))
    answers = list(over_batches(run, ask, batches(run, examples), found.inputs, (found.target,)))
    truth = np.concatenate([kept[found.target] for kept, _ in answers])
    outputs = np.concatenate([rows for _, rows in answers])
    chance = {found.metric: found.chance(truth)}
    return [
      make_result(
        run, f"{examples.name}_{name}", "modalities", f"{examples.title}: {name.replace('_', ' ')}", examples,
        ({found.metric: found.score(outputs[:, place], truth)}, chance), table=MODALITIES,
      )
      for place, name in enumerate(names)
    ]  # fmt: skip


def subsets(towers: Sequence[str]) -> dict[str, tuple[bool, ...]]:
  """Towers that are read, by name: only_A for each tower and, with more than two, without_A."""
  only = {f"only_{name}": tuple(other == name for other in towers) for name in towers}
  without = {f"without_{name}": tuple(other != name for other in towers) for name in towers}
  return only | (without if len(towers) > 2 else {})


@dataclasses.dataclass(frozen=True)
class With:
  """(model, batch) -> outputs [batch, subsets, outputs]. Equal instances share a compilation.

  Attributes:
    subsets: for each subset, which towers are read.
  """

  subsets: tuple[tuple[bool, ...], ...]

  def __call__(self, model: Any, batch: Any) -> Array:
    encoded = model.encode(batch)
    rows = len(next(iter(encoded.values())).mask)
    there = [jnp.broadcast_to(jnp.asarray(subset)[None], (rows, len(subset))) for subset in self.subsets]
    return jnp.stack([model.outputs(model.choose(encoded, each)) for each in there], axis=1)


def _towers(experiment: Experiment) -> list[str]:
  model: Any = experiment.model
  return list(model.towers)

"""Boosting of classifiers: SAMME (Zhu et al. 2009, multi-class AdaBoost)."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmjax.data import Weighted
from mmjax.data.features import run_columns
from mmjax.ensembles.combining import combine
from mmjax.ensembles.scoring import predictions
from mmjax.errors import ConfigError, UserError
from mmjax.experiment import Experiment
from mmjax.kinds import Kind
from mmjax.run import Run
from mmjax.train import Training, train

_SURE = 1e-10
"""Error that a member without errors counts as, so that its weight is finite."""


class Boosted(NamedTuple):
  """Result of `samme`.

  Attributes:
    members: what `learn` returned, of the rounds that count.
    weights: their weights in the vote.
    errors: weighted error of every round, also of one that does not count.
  """

  members: tuple[Any, ...]
  weights: tuple[float, ...]
  errors: tuple[float, ...]


def samme(
  learn: Callable[[int, Float[np.ndarray, " n"]], tuple[Any, Int[np.ndarray, " n"]]],
  labels: Int[np.ndarray, " n"],
  *,
  classes: int,
  rounds: int,
) -> Boosted:
  """Boost a classifier (Zhu et al. 2009, algorithm 2).

  With e the weighted error of a round, its weight in the vote is a = ln((1 - e) / e) + ln(classes - 1), and the weights
  of the examples that it has wrong are multiplied by exp(a). A round with e >= 1 - 1 / classes, no better than chance,
  does not count and is the last one. A round without errors is the last one, too.

  Args:
    learn: function (number of the round, weights of the examples, with the mean 1) -> (member, its classes of the
      training examples).
    labels: classes of the training examples.
    classes: number of classes.
    rounds: largest number of rounds.
  Raises: ConfigError: the first round is no better than chance.
  """
  weights, members, given, errors = np.full(len(labels), 1.0), [], [], []
  for number in range(rounds):
    member, guesses = learn(number, weights / weights.mean())
    wrong = np.asarray(guesses) != labels
    error = float(weights[wrong].sum() / weights.sum())
    errors.append(error)
    if error >= 1 - 1 / classes:
      break
    members.append(member)
    given.append(math.log(max(1 - error, _SURE) / max(error, _SURE)) + math.log(classes - 1))
    if not wrong.any():
      break
    weights = weights / weights.sum() * np.exp(given[-1] * wrong)
  if not members:
    raise ConfigError(
      f"the first member has a weighted error of {errors[0]:.3f}, no better than chance: train it for more steps"
    )
  return Boosted(tuple(members), tuple(given), tuple(errors))


def boost(
  experiment: Experiment,
  rounds: int,
  *,
  kinds: tuple[type[Kind], ...] = (),
  made_by: Callable[..., Training] | None = None,
) -> Run:
  """Train members one after the other, each on the examples that those before it have wrong (SAMME).

  Round r is trained in run.workdir/round_r, where a finished round is read again.

  Args:
    experiment: a classifier (objective Classify). Member r has the seed run.seed + r.
    rounds: largest number of members.
    kinds: the classes that the script defines.
    made_by: as in mmjax.train.train, so that the members share compiled programs.
  Returns: an ensemble that votes, with run.workdir as its folder. `save_run` writes it.
  Raises: ConfigError: the experiment has no objective Classify, or its first member is no better than chance.
    UserError: a signal stopped the training.
  """
  from mmjax.objectives import Classify

  terms = experiment.objectives
  if len(terms) != 1 or type(terms[0]) is not Classify:
    raise ConfigError("boosting needs an experiment whose one objective is classify")
  root = experiment.run.workdir.expanduser()

  def round_of(number: int, weights: Float[np.ndarray, " n"]) -> tuple[Run, Int[np.ndarray, " n"]]:
    workdir = root / f"round_{number}"
    workdir.mkdir(parents=True, exist_ok=True)
    np.save(workdir / "weights.npy", weights)
    outcome = train(_member(experiment, number, workdir), kinds=kinds, made_by=made_by)
    if outcome.exit_status:
      raise UserError(f"round {number} was stopped after step {outcome.run.step}; the same call resumes from there")
    return outcome.run, predictions(outcome.run, "train").logits.argmax(1)

  labels, classes = _labels(experiment)
  found = samme(round_of, labels, classes=classes, rounds=rounds)
  return combine(_unweighted(found.members, experiment), root, rule="vote", weights=found.weights)


def _member(experiment: Experiment, number: int, workdir: Path) -> Experiment:
  term: Any = experiment.objectives[0]
  source = Weighted(of=experiment.data.source, path=str(workdir / "weights.npy"))
  columns = {**run_columns(experiment.data), "weight": source.columns["weight"]}
  return dataclasses.replace(
    experiment,
    data=dataclasses.replace(experiment.data, source=source, columns=columns),
    objectives=(dataclasses.replace(term, example_weights="weight"),),
    run=dataclasses.replace(experiment.run, workdir=workdir, seed=experiment.run.seed + number),
  )


def _labels(experiment: Experiment) -> tuple[Int[np.ndarray, " n"], int]:
  """Classes of the training examples, and their number."""
  from mmjax.data import make_source

  term: Any = experiment.objectives[0]
  column: Any = run_columns(experiment.data)[term.label]
  source = make_source(experiment.data, "train")
  fitted = column.fit(source)
  read = getattr(source, "without_image", source.__getitem__)
  labels = [int(column.row(read(place), None, fitted)) for place in range(len(source))]
  return np.array(labels), len(fitted["classes"])


def _unweighted(runs: Sequence[Run], experiment: Experiment) -> list[Run]:
  """The runs, with the data of the experiment, which has no file of weights."""
  return [
    dataclasses.replace(
      run,
      experiment=dataclasses.replace(
        run.experiment,
        data=experiment.data,
        objectives=tuple(dataclasses.replace(term, example_weights="") for term in run.experiment.objectives),  # type: ignore[call-arg]
      ),
    )
    for run in runs
  ]

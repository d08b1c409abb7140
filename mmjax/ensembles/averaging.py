"""Averages of the weights of runs: model soups, and interpolation between two runs (WiSE-FT). Each is one model."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from mmjax.ensembles.alike import check_inputs, check_models, own_params, together
from mmjax.errors import ConfigError
from mmjax.models.config import towers
from mmjax.run import Run


def average(runs: Sequence[Run], workdir: str | Path, *, weights: Sequence[float] | None = None) -> Run:
  """Average the weights of runs: a uniform soup (Wortsman et al. 2022, model soups, section 2).

  The runs should begin from the same weights. The average of runs from different beginnings is no better than chance.

  Args:
    runs: runs with equal models, on equal data.
    workdir: folder of the average. `save_run` writes it.
    weights: weight of each run. Only their ratios matter. None: equal weights.
  Returns: a run with the model of the runs. It is not saved.
  Raises: ConfigError: the runs do not fit together. The message names the field that differs.
  """
  check_inputs(runs)
  check_models(runs)
  _check_statistics(runs[0])
  given = [1.0] * len(runs) if weights is None else list(weights)
  if len(given) != len(runs) or not math.isfinite(sum(given)) or sum(given) <= 0:
    raise ConfigError(f"weights={given} for {len(runs)} runs: give one for each, with a positive sum")
  shares = [weight / sum(given) for weight in given]
  params = jax.tree.map(lambda *leaves: _weighted(leaves, shares), *map(own_params, runs))
  return together(runs[0], Path(workdir), params=params, step=max(run.step for run in runs))


def interpolate(start: Run, tuned: Run, share: float, workdir: str | Path) -> Run:
  """Interpolate between the weights of two runs: WiSE-FT (Wortsman et al. 2022, section 3, alpha = `share`).

  Args:
    start: the run that fine-tuning began from, such as a zero-shot model.
    tuned: the fine-tuned run.
    share: share of `tuned`: 0 is `start`, 1 is `tuned`.
    workdir: folder of the result. `save_run` writes it.
  """
  return average([start, tuned], workdir, weights=[1 - share, share])


class Soup(NamedTuple):
  """A greedy soup.

  Attributes:
    run: the average of the chosen runs.
    chosen: places of the chosen runs, in the order in which they were added.
    score: score of the average.
    scores: score of each run alone.
  """

  run: Run
  chosen: tuple[int, ...]
  score: float
  scores: tuple[float, ...]


def greedy_soup(runs: Sequence[Run], score: Callable[[Run], float], workdir: str | Path) -> Soup:
  """Make a greedy soup (Wortsman et al. 2022, model soups, recipe 1).

  The runs are tried from the best to the worst. A run is added if the average with it scores at least as well.

  Args:
    runs: runs with equal models, on equal data.
    score: score of a run on held-out examples, higher is better. Test on other examples.
    workdir: folder of the soup. `save_run` writes it.
  """
  scores = tuple(score(run) for run in runs)
  order = sorted(range(len(runs)), key=lambda place: -scores[place])
  chosen = order[:1]
  soup = average([runs[place] for place in chosen], workdir)
  best = scores[chosen[0]]
  for place in order[1:]:
    tried = average([runs[each] for each in (*chosen, place)], workdir)
    found = score(tried)
    if found >= best:
      chosen, soup, best = [*chosen, place], tried, found
  return Soup(soup, tuple(chosen), best, scores)


def _weighted(leaves: Sequence[jax.Array], shares: Sequence[float]) -> jax.Array:
  """The weighted sum. Weights of 0 and 1 give the bits of a leaf."""
  kept = [(leaf, share) for leaf, share in zip(leaves, shares, strict=True) if share]
  if len(kept) == 1 and kept[0][1] == 1:
    return kept[0][0]
  return sum((leaf * share for leaf, share in kept[1:]), start=kept[0][0] * kept[0][1])


def _check_statistics(run: Run) -> None:
  """Raise ConfigError for batch norm: the statistics of averaged weights are not the average of the statistics."""
  for name, tower in towers(run.experiment.model).items():
    if getattr(tower, "batch_statistics", False):
      raise ConfigError(
        f"the tower {name} of the run in {run.workdir} normalises by statistics of its activations, which are others "
        "with averaged weights (Izmailov et al. 2018, section 3.2): combine the answers of the runs instead"
      )

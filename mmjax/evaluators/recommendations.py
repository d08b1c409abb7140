"""Recommendation of the next item of each user, with all items ranked; and two floors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.errors import DataError
from mmjax.data.places import spread
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, example_columns, shown_examples
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.item_neighbours import item_neighbours, neighbour_scores
from mmjax.evaluate.metrics import TIE, ranks
from mmjax.evaluate.ranking import chance_ranking, coverage, first_items, ranking_metrics
from mmjax.evaluate.results import RECOMMENDATION, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.models.recommender import ITEM, USER, RecommenderConfig

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run

FLOORS = ("popularity", "item_knn", "latest_knn")
"""Methods that each run is compared with."""
HEAD = 0.2
"""Share of the items, those with the most training interactions, that are no part of the tail."""
_ROWS = 1024  # users whose scores are held at a time
Scores = Callable[[slice], Float[np.ndarray, "users items"]]
"""Scores of all items for some of the users."""


class Ranked(NamedTuple):
  """Result of one method.

  Attributes:
    rank: rank of the held-out item of each user, from 1.
    lists: first items of each user, the best first.
    sizes: number of items that are ranked for each user.
  """

  rank: Int[np.ndarray, " users"]
  lists: Int[np.ndarray, "users k"]
  sizes: Int[np.ndarray, " users"]


@dataclasses.dataclass(frozen=True)
class Recommendations(Evaluator):
  """Ranks of the held-out item of each user among all items but the earlier ones of the user (Krichene and Rendle 2020:
  not among a sample of them).

  Hit rate, NDCG and coverage; the same for held-out items of the tail (not among the fifth of the items with the most
  training interactions), and with the setting `cold` of the source for items without training interactions. Floors: the
  most popular items, neighbours of all items of the user, and neighbours of those in the history alone.
  """

  cutoffs: tuple[int, ...] = (5, 10, 20)
  """Lengths of the lists."""
  neighbours: int = 20
  """Neighbours of an item in the floor."""
  shown: int = 6
  """Users in the report."""

  def __post_init__(self) -> None:
    if not self.cutoffs or min(self.cutoffs) < 1 or self.neighbours < 1:
      raise ValueError(f"cutoffs={self.cutoffs} and neighbours={self.neighbours} must be at least 1")

  def applies(self, experiment: Experiment) -> bool:
    return isinstance(experiment.model, RecommenderConfig)

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    name, cold = experiment.data.source.title, getattr(experiment.data.source, "cold", 0)
    hits = [f"{metric}@{cutoff}" for cutoff in self._cutoffs for metric in ("hit_rate", "ndcg")]
    covered = [f"coverage@{cutoff}" for cutoff in self._cutoffs]
    parts = ["", *(f"_{floor}" for floor in FLOORS)]
    whole = [f"{name}{part}/{metric}" for part in parts for metric in (*hits, *covered)]
    return [*whole, *(f"{name}{part}/{metric}" for part in (["_tail"] + ["_cold"] * bool(cold)) for metric in hits)]

  @property
  def _cutoffs(self) -> list[int]:
    """The cutoffs, with the one that a checkpoint is chosen by first."""
    return sorted(self.cutoffs, key=lambda cutoff: (cutoff != 10, cutoff))

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)
    interactions(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    log, examples = interactions(run, shared), shown_examples(run, shared)
    name, target = run.experiment.data.source.title, targets(examples)
    users = np.array([log.place_of_user[record["user"]] for record in examples.records])
    seen = log.matrix(~log.last)[users]
    popular = np.broadcast_to(log.counts.astype(np.float32), (len(users), len(log.counts)))
    near = item_neighbours(log.matrix(log.trained), self.neighbours)
    latest = log.matrix(log.latest)[users]
    scores: dict[str, Scores] = {
      "popularity": lambda rows: popular[rows],
      "item_knn": lambda rows: neighbour_scores(seen[rows], near),
      "latest_knn": lambda rows: neighbour_scores(latest[rows], near),
    }
    floors = {name: self._ranked(score, seen, target) for name, score in scores.items()}
    own = shared.once("recommendations", lambda: self._own(run, shared))
    chance = chance_ranking(own.sizes, self._cutoffs)
    floor: Any = dict(floor=self._scored(floors["item_knn"], log), floor_is="item kNN on all items of the user")
    make = lambda part, title, rows, found, **more: make_result(
      run, name + part, "recommendation", title, rows, found, table=RECOMMENDATION, gallery=len(log.items.names), **more
    )
    results = [make("", f"{name}, held-out item of each user", users, (self._scored(own, log), chance), **floor)]
    titles = {
      "popularity": "most popular items",
      "item_knn": f"item kNN, {self.neighbours} neighbours of all items of the user",
      "latest_knn": f"item kNN, {self.neighbours} neighbours of the latest {log.history} items",
    }
    results += [
      make(f"_{key}", f"{name}: {titles[key]}", users, (self._scored(ranked, log), chance))
      for key, ranked in floors.items()
    ]
    parts = {"_tail": ("items of the tail", tail(log.counts)[target])}
    if getattr(run.experiment.data.source, "cold", 0):
      parts["_cold"] = ("items without training interactions", log.counts[target] == 0)
    for part, (what, chosen) in parts.items():
      if chosen.any():
        metrics = ranking_metrics(own.rank[chosen], self._cutoffs)
        floor = dict(floor=ranking_metrics(floors["item_knn"].rank[chosen], self._cutoffs), floor_is="item kNN")
        results.append(make(part, f"{name}: {what}", own.rank[chosen], (metrics, chance), **floor))
    return results

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.page import Section

    own, log = shared.once("recommendations", lambda: self._own(run, shared)), interactions(run, shared)
    examples, catalogue = shown_examples(run, shared), log.catalogue()
    columns = item_columns(run, examples)
    title = lambda place: (
      escape(str(catalogue[place].get("title", "")))
      or "; ".join(filter(None, (column.show(catalogue[place]) for column in columns.values())))
    )
    places = {name: place for place, name in enumerate(log.items.names)}
    lines = []
    for row in spread(len(examples), self.shown):
      record = examples[row]
      cells = (
        "<br>".join(title(places[name]) for name in record["history"][:5]),
        "<br>".join(title(place) for place in own.lists[row, :5].tolist() if place >= 0),
        title(record["concept"]),
        str(own.rank[row]),
      )
      lines.append(f"<tr><td>{escape(record['user'])}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    heads = ("user", "latest items", "recommended", "held out", "its rank")
    table = f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(lines)}</table>"
    return [Section("recommendations", "Recommendations", table)]

  def _own(self, run: Run, shared: Shared) -> Ranked:
    """Ranks by the model."""
    log, examples = interactions(run, shared), shown_examples(run, shared)
    users, items = embeddings(run, examples, log.catalogue())
    seen = log.matrix(~log.last)[np.array([log.place_of_user[record["user"]] for record in examples.records])]
    return self._ranked(lambda rows: users[rows] @ items.T, seen, targets(examples))

  def _ranked(self, scores: Scores, seen: Any, target: Int[np.ndarray, " users"]) -> Ranked:
    parts = []
    for start in range(0, len(target), _ROWS):
      rows = slice(start, start + _ROWS)
      found, own = np.array(scores(rows), np.float32), target[rows]
      right = own[:, None] == np.arange(found.shape[1])[None]
      hidden = (seen[rows].toarray() > 0) & ~right
      found[hidden] = -np.inf
      lists = first_items(found, max(self.cutoffs))
      parts.append(Ranked(ranks(found, right, tie=TIE), lists, (~hidden).sum(axis=1)))
    return Ranked(*(np.concatenate(each) for each in zip(*parts, strict=True)))

  def _scored(self, ranked: Ranked, log: Any) -> Metrics:
    hits = ranking_metrics(ranked.rank, self._cutoffs)
    return hits | coverage(ranked.lists, len(log.items.names), self._cutoffs)


def interactions(run: Run, shared: Shared) -> Any:
  """The interactions of the source. Raises DataError for a source without interactions."""
  from mmjax.data import make_source

  log = shared.once("interactions", lambda: getattr(make_source(run.experiment.data, "validation"), "log", None))
  if log is None:
    raise DataError(
      "a model that recommends is measured on interactions of users with items: use --data.source interaction_file, or "
      "a source of the class InteractionSource"
    )
  return log


def embeddings(
  run: Run, examples: Examples, catalogue: Any
) -> tuple[Float[np.ndarray, "users dim"], Float[np.ndarray, "items dim"]]:
  """Unit-norm embeddings of the users of examples, and of all items."""
  from mmjax.data import evaluation_batches

  model: Any = run.experiment.model
  columns = item_columns(run, examples)
  of_item = evaluation_batches(
    catalogue, run.transform, run.tokenizer, batch_size=run.batch_size(len(catalogue)), columns=columns,
    fitted=run.fitted,
  )  # fmt: skip
  users = over_batches(run, user_embeddings, batches(run, examples), model.of_user)
  items = over_batches(run, item_embeddings, of_item, tuple(columns))
  return _joined(users), _joined(items)


def item_columns(run: Run, examples: Examples) -> Mapping[str, Any]:
  """The columns that the tower of items encodes, by name."""
  model: Any = run.experiment.model
  columns = example_columns(run.experiment.data, examples.features)
  return {name: columns[name] for name in model.sides[ITEM].towers}


def targets(examples: Examples) -> Int[np.ndarray, " users"]:
  """Place of the held-out item of each example in the catalogue."""
  return np.array([record["concept"] for record in examples.records])


def tail(counts: Int[np.ndarray, " items"]) -> np.ndarray:
  """True for the items that are not among those with the most training interactions (HEAD)."""
  place = np.empty(len(counts), np.int64)
  place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
  return place >= HEAD * len(counts)


def user_embeddings(model: Any, batch: Any) -> Any:
  """Embeddings of the users of a batch."""
  return model.project(model.encode(batch))[USER]


def item_embeddings(model: Any, batch: Any) -> Any:
  """Embeddings of the items of a batch."""
  return model.project(model.encode(batch))[ITEM]


def _joined(parts: Iterator[tuple[Any, np.ndarray]]) -> np.ndarray:
  return np.concatenate([rows for _, rows in parts])

"""Few-shot evaluation: answers after a number of demonstrations, which are records with an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.errors import DataError
from mmjax.data.places import spread
from mmjax.data.records import concept_number
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.forward import gathered, over_rows
from mmjax.evaluate.prompts import Prompt, interleaved_column, likelihoods, written
from mmjax.evaluate.results import Result, Table
from mmjax.evaluate.task import make_result
from mmjax.models.interleaved import InterleavedConfig
from mmjax.models.next_word import GenerateConfig
from mmjax.nn.norm import normalize

if TYPE_CHECKING:
  from mmjax.data.records import Records
  from mmjax.experiment import Experiment
  from mmjax.run import Run

FEW_SHOT = Table("few_shot", "Answers after demonstrations")
Embed = Callable[[Sequence[Any]], np.ndarray]
_MOST_CHOICES = 100


@dataclasses.dataclass(frozen=True)
class FewShot(Evaluator):
  """Accuracy of answers after k demonstrations (Alayrac et al. 2022, section 3.1).

  Records need `prompt`, a text with `<image>`, its `images`, and `answer`. A demonstration is the prompt of another
  record with its answer. `choices`, if records have it, are the answers that are ranked; otherwise they are all answers
  of the demonstrations. Chance is the share of the choices that is right. In the control "shuffled", the images of the
  demonstrations are dealt to them anew at random.
  """

  shots: tuple[int, ...] = (0, 1, 2, 4, 8)
  """Numbers of demonstrations."""
  demonstrations: str = "train"
  """Split of the demonstrations. A record is never its own demonstration."""
  same: str = ""
  """Field that a record and its demonstrations must have in common. Empty: none."""
  choose: Literal["random", "similar"] = "random"
  """Choice of the demonstrations: at random, or those whose first images are most similar in the frozen image tower,
  the most similar last (RICES, Yang et al. 2022)."""
  scoring: Literal["ranked", "written"] = "ranked"
  """ranked: the likeliest of the choices is the answer. written: the text that the model writes."""
  orders: int = 1
  """Random orders of the demonstrations whose log-probabilities are added up. Only with ranked."""
  shuffled: bool = True
  """Measure the control, for each number of demonstrations above 1."""
  examples: int = 200
  """Number of records of the validation split, evenly spread over it."""
  seed: int = 0
  """Seed of the choice and of the order of demonstrations."""

  def __post_init__(self) -> None:
    if not self.shots or min(self.shots) < 0 or self.orders < 1 or self.examples < 1:
      raise ValueError(
        f"shots={self.shots} must not be negative, and orders={self.orders} and examples={self.examples} at least 1"
      )
    if self.orders > 1 and (self.scoring == "written" or self.choose == "similar"):
      raise ValueError(f"orders={self.orders} needs scoring=ranked and choose=random")

  def applies(self, experiment: Experiment) -> bool:
    return isinstance(experiment.model, InterleavedConfig)

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{self._name(experiment.data.source.title, shots)}/accuracy" for shots in self.shots]

  def check(self, run: Run, shared: Shared) -> None:
    queries, pool = self._records(run)
    for shots in self.shots:
      self._demonstrations(queries, pool, shots, None)
    column = interleaved_column(run)
    if max(self.shots) >= column.images:
      raise DataError(
        f"{max(self.shots)} demonstrations and a question have {max(self.shots) + 1} images, and the column 'text' has "
        f"{column.images} a row. Set --data.columns.text.images and --model.images to {max(self.shots) + 1}."
      )

  def run(self, run: Run, shared: Shared) -> list[Result]:
    queries, pool = self._records(run)
    vectors = None
    if self.choose == "similar":
      asked, shown = ([record["images"][0] for record in each] for each in (queries, pool))
      vectors = image_vectors(run, asked), image_vectors(run, shown)
    return self.measured(run, queries, pool, vectors)

  def measured(
    self,
    run: Run,
    queries: Sequence[Mapping[str, Any]],
    pool: Sequence[Mapping[str, Any]],
    vectors: tuple[Float[np.ndarray, "queries dim"], Float[np.ndarray, "pool dim"]] | None = None,
  ) -> list[Result]:
    """Measure the accuracy for every number of demonstrations, and that of the control.

    Args:
      run: the run.
      queries: records that are asked.
      pool: records that are demonstrations.
      vectors: unit-norm embeddings of the first images of both, such as a CLIP run's. None: random demonstrations.
    """
    results, title = [], run.experiment.data.source.title
    for shots in self.shots:
      chosen = self._demonstrations(queries, pool, shots, vectors)
      for shuffle in (False, True) if self.shuffled and shots > 1 else (False,):
        found, chance = self._accuracy(run, queries, pool, chosen, shuffle)
        name = self._name(title, shots) + ("_shuffled" if shuffle else "")
        heading = f"{title}: {shots} demonstrations" + (", their images shuffled" if shuffle else "")
        results.append(
          make_result(
            run, name, "few_shot", heading, queries, ({"accuracy": found}, {"accuracy": chance}), table=FEW_SHOT,
            **({"control": True} if shuffle else {}),
          )
        )  # fmt: skip
    return results

  def _name(self, title: str, shots: int) -> str:
    kind = "" if self.choose == "random" else "_similar"
    return f"{title}{kind}{'_written' if self.scoring == 'written' else ''}_{shots}_shots"

  def _records(self, run: Run) -> tuple[list[Any], list[Any]]:
    from mmjax.data import make_source

    data = run.experiment.data
    source: Records = make_source(data, "validation")
    queries = [source[place] for place in spread(len(source), self.examples)]
    others: Records = source if self.demonstrations == "validation" else make_source(data, self.demonstrations)
    pool = [others[place] for place in range(len(others))] if max(self.shots) else []
    for record in (*queries, *pool):
      lacking = [name for name in ("prompt", "answer", "images") if name not in record]
      if lacking:
        raise DataError(
          f"{record['id']}: the evaluator FewShot asks for {lacking[0]!r}, and there are {', '.join(sorted(record))}. "
          "Add it to the records, or leave the evaluator out."
        )
    return queries, pool

  def _demonstrations(
    self, queries: Sequence[Any], pool: Sequence[Any], shots: int, vectors: Any
  ) -> list[Int[np.ndarray, " shots"]]:
    """Places in the pool of the demonstrations of each query. Fewer demonstrations are the first of more."""
    by_field: dict[Any, list[int]] = {}
    for place, record in enumerate(pool):
      by_field.setdefault(record.get(self.same) if self.same else None, []).append(place)
    found = []
    for number, record in enumerate(queries):
      candidates = by_field.get(record.get(self.same) if self.same else None, [])
      mine = np.array([place for place in candidates if pool[place]["id"] != record["id"]], np.int64)
      if len(mine) < shots:
        raise DataError(
          f"{record['id']}: there are {len(mine)} other records with its {self.same or 'split'}, and {shots} "
          "demonstrations. Ask for fewer shots, or add records."
        )
      if vectors is None:
        rng = np.random.default_rng([self.seed, concept_number(str(record["id"]))])
        found.append(rng.permutation(mine)[:shots])
      else:
        nearest = np.argsort(-(vectors[1][mine] @ vectors[0][number]), kind="stable")
        found.append(mine[nearest[:shots]][::-1])
    return found

  def _accuracy(
    self, run: Run, queries: Sequence[Any], pool: Sequence[Any], chosen: Sequence[Any], shuffle: bool
  ) -> tuple[float, float]:
    """(accuracy, share of the choices that is right)."""
    answers = [record["answer"] for record in queries]
    choices = self._choices(queries, pool)
    chance = float(np.mean([1 / len(row) for row in choices])) if choices else 0.0
    if self.scoring == "written":
      prompts = [
        self._prompt(record, [pool[place] for place in row], shuffle, 0) for record, row in zip(queries, chosen)
      ]
      said = written(run, prompts, GenerateConfig(max_new_tokens=_answer_length(run, answers)))
      return float(np.mean([_same(one, other) for one, other in zip(said, answers, strict=True)])), chance
    if not choices:
      raise DataError("There are no answers to rank: give records the field `choices`, or use scoring=written.")
    total = np.zeros((len(queries), len(choices[0])))
    for order in range(self.orders):
      prompts = [
        self._prompt(record, [pool[place] for place in row], shuffle, order) for record, row in zip(queries, chosen)
      ]
      total += likelihoods(run, prompts, choices)
    said = [row[place] for row, place in zip(choices, total.argmax(1), strict=True)]
    return float(np.mean([one == other for one, other in zip(said, answers, strict=True)])), chance

  def _choices(self, queries: Sequence[Any], pool: Sequence[Any]) -> list[list[str]]:
    if all("choices" in record for record in queries):
      rows = [list(record["choices"]) for record in queries]
      if len({len(row) for row in rows}) > 1:
        raise DataError("The records have different numbers of choices: give all as many, or use scoring=written.")
      return rows
    known = sorted({record["answer"] for record in (*queries, *pool)})
    return [known] * len(queries) if len(known) <= _MOST_CHOICES else []

  def _prompt(self, record: Any, demonstrations: Sequence[Any], shuffle: bool, order: int) -> Prompt:
    rng = np.random.default_rng([self.seed, concept_number(str(record["id"])), order])
    if order:
      demonstrations = [demonstrations[place] for place in rng.permutation(len(demonstrations))]
    shown = [one["images"] for one in demonstrations]
    if shuffle:
      shown = [shown[place] for place in rng.permutation(len(shown))]
    shots = [(f"{one['prompt']} {one['answer']}", images) for one, images in zip(demonstrations, shown, strict=True)]
    return Prompt.of(record["prompt"], record["images"], shots)


def image_vectors(run: Run, images: Sequence[Any]) -> Float[np.ndarray, "n dim"]:
  """Unit-norm vectors of images by the frozen image tower of a run: its pooled vectors."""
  if not images:
    return np.zeros((0, 1), np.float32)
  take = lambda places: {"image": run.shown(images, places)}
  return gathered(over_rows(run, _vectors, len(images), take))


def _vectors(model: Any, batch: Any) -> Any:
  return normalize(model.image(batch["image"]).pooled)


def _same(said: str, answer: str) -> bool:
  return " ".join(said.casefold().split()) == " ".join(answer.casefold().split())


def _answer_length(run: Run, answers: Sequence[str]) -> int:
  from mmjax.evaluate.forward import text_tokenizer

  return 1 + max(len(ids) for ids in text_tokenizer(run).word_ids(sorted(set(answers))))

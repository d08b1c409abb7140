"""Hidden words, guessed from the words around them and from the image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int

from mmjax.errors import UserError
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches, text_tokenizer
from mmjax.evaluate.matching import other_texts
from mmjax.evaluate.results import WORDS, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import Fuses, GuessesWords
from mmjax.objectives.losses.masked_words import take_positions

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run

RATE = 0.15
"""Share of the words that is hidden, where masked_words names none (Devlin et al. 2019)."""


@dataclasses.dataclass(frozen=True)
class HiddenWords(Evaluator):
  """Accuracy over hidden words: with the image, with another image (the control), and from the text alone.

  Chance is naming the commonest of the hidden words every time.
  """

  masked_words: tuple[str, ...] = ()
  """Hide these words wherever they occur (each one token); empty: 15% of all words."""

  def applies(self, experiment: Experiment) -> bool:
    return bool(self._ways(experiment))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    name = shown_name(experiment.data)
    return [f"{name}_masked{suffix}/masked_word_accuracy" for suffix in self._ways(experiment)]

  def check(self, run: Run, shared: Shared) -> None:
    examples, batches = checked_examples(run, shared)
    tokenizer, words = text_tokenizer(run), self.masked_word_ids(run)
    shown = [batch["text"] for batch in batches]
    if not any((~np.isin(ids, tokenizer.special_ids) if words is None else np.isin(ids, words)).any() for ids in shown):
      raise _no_word(examples)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples, ways, results = shown_examples(run, shared), self._ways(run.experiment), []
    if "" in ways:
      other = shuffled_images(examples)
      results.append(self._guessed(run, examples, "", "with the image", with_image))
      results.append(self._guessed(run, other, "_shuffled", "with another image", with_image))
    if "_text" in ways:
      results.append(self._guessed(run, examples, "_text", "from the text alone", from_text))
    return results

  def _ways(self, experiment: Experiment) -> list[str]:
    """The endings of the results' names: "" from image and text, "_text" from the text alone."""
    found = entries(experiment.data)
    fused = "image" in found and "text" in found and terms(experiment, GuessesWords, Fuses)
    alone = "text" in found and terms(experiment, GuessesWords, without=(Fuses,))
    return [""] * bool(fused) + ["_text"] * bool(alone)

  def _guessed(self, run: Run, examples: Examples, suffix: str, how: str, ask: Any) -> Result:
    names = ("image",) if ask is with_image else tuple({"segment"} & set(examples.features))
    right, truth = [], []
    asked, kept = (*names, "hidden", "places"), ("text", "places", "counted")
    for batch, guess in over_batches(run, ask, self._hidden(run, examples), asked, kept):
      ids = np.take_along_axis(batch["text"], batch["places"], axis=1)
      right.append((guess == ids)[batch["counted"]])
      truth.append(ids[batch["counted"]])
    found, known = np.concatenate(right), np.concatenate(truth)
    if not len(known):
      raise _no_word(examples)
    prior = np.max(np.unique(known, return_counts=True)[1]) / len(known)
    scores: Metrics = {"masked_word_accuracy": float(found.mean())}
    chance: Metrics = {"masked_word_accuracy": float(prior)}
    return make_result(
      run, f"{examples.name}_masked{suffix}", "masked_words", f"{examples.title}: hidden words, {how}", examples,
      (scores, chance), table=WORDS, control=suffix == "_shuffled",
    )  # fmt: skip

  def _hidden(self, run: Run, examples: Examples) -> Iterator[dict[str, Any]]:
    """Evaluation batches with "hidden", "places" and "counted" besides."""
    tokenizer: Any = text_tokenizer(run)  # it has a mask token: the terms ask for one
    wanted = self.masked_word_ids(run)
    for batch in batches(run, examples):
      hidden, places, counted = hide(
        batch["text"], batch["index"], mask_id=tokenizer.mask_id, special=tokenizer.special_ids, words=wanted
      )
      yield batch | {"hidden": hidden, "places": places, "counted": counted}

  def masked_word_ids(self, run: Run) -> Int[np.ndarray, " words"] | None:
    """The ids of masked_words; None where it is empty. Raises UserError for a word of several tokens."""
    words = self.masked_words
    if not words:
      return None
    tokenizer = text_tokenizer(run)
    ids = [[i for i in row.tolist() if i not in tokenizer.special_ids] for row in tokenizer(list(words))]
    broken = [word for word, found in zip(words, ids) if len(found) != 1]
    if broken:
      raise UserError(f"masked_words: {', '.join(broken)} is not one token of this vocabulary; name others")
    return np.array([found[0] for found in ids])


def _no_word(examples: Examples) -> UserError:
  return UserError(f"no text of {examples.title} has a word of masked_words: name others, or none")


def hide(
  ids: Int[np.ndarray, "n t"],
  numbers: Int[np.ndarray, " n"],
  *,
  mask_id: int,
  special: tuple[int, ...],
  words: Int[np.ndarray, " words"] | None = None,
) -> tuple[Int[np.ndarray, "n t"], Int[np.ndarray, "n most"], Bool[np.ndarray, "n most"]]:
  """(ids with words hidden, the places, which of the places count).

  Args:
    ids: texts.
    numbers: of the records: what is hidden of a text is a function of its record's number.
    mask_id: what stands for a hidden word.
    special: ids that are never hidden.
    words: hide every one of these; where it is None, a random RATE of the words, and at least one.
  """
  most = max(1, round(RATE * ids.shape[1])) if words is None else ids.shape[1]
  places, counted = np.zeros((len(ids), most), np.int32), np.zeros((len(ids), most), bool)
  hidden = ids.copy()
  for row, (text, number) in enumerate(zip(ids, numbers.tolist())):
    found = np.flatnonzero(~np.isin(text, special) if words is None else np.isin(text, words))
    if words is None and len(found):
      found = np.random.default_rng(number).permutation(found)[: min(most, max(1, round(RATE * len(found))))]
    places[row, : len(found)], counted[row, : len(found)] = found, True
    hidden[row, found] = mask_id
  return hidden, places, counted


def with_image(model: Any, batch: Any) -> Int[Array, "batch most"]:
  """The likeliest word at each place, given image and text."""
  image, text = model.encode({"image": batch["image"]})["image"], model.encode_words(batch["hidden"])
  return _likeliest(model, model.fuse({"image": image, "text": text})["text"].tokens, batch)


def from_text(model: Any, batch: Any) -> Int[Array, "batch most"]:
  """The likeliest word at each place, given the text alone."""
  segment = {"segment": batch["segment"]} if "segment" in batch else {}
  return _likeliest(model, model.encode_words(batch["hidden"], **segment).tokens, batch, fused=False)


def _likeliest(model: Any, tokens: Array, batch: Any, **which: bool) -> Int[Array, "batch most"]:
  return jnp.argmax(model.word_logits(take_positions(tokens, batch["places"]), **which), axis=-1)


def shuffled_images(examples: Examples) -> Examples:
  """The control: every record with the image of another."""
  other = other_texts(np.array([record["concept"] for record in examples.records]))
  records = [
    {**record, "image": examples.records[place if place >= 0 else own]["image"]}
    for own, (record, place) in enumerate(zip(examples.records, other.tolist()))
  ]
  return Examples(examples.name, examples.title, records, tuple(f for f in examples.features if f != "relevance"))

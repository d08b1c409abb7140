"""Hidden words guessed from the words around them, and from the picture; and whether a sentence follows another."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int

from mmjax.errors import UserError
from mmjax.evaluate.examples import Examples, batches
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.matching import other_texts
from mmjax.evaluate.results import Metrics, Result
from mmjax.evaluate.task import Task
from mmjax.objectives.masked_words import take_positions

RATE = 0.15
"""Share of the words that is hidden, where evaluation.masked_words names none (Devlin et al. 2019)."""


def run(run: Any, examples: Examples) -> list[Result]:
  """Hidden words with the picture, with another picture and from the text alone: whatever the run was trained for."""
  trained = {objective.name for objective in run.experiment.objectives}
  results: list[Result] = []
  if "image" in examples.features and trained & {"masked_words", "masked_both"}:
    results += [_guessed(run, examples, how, with_picture, ("image",)) for how in ("", "_shuffled")]
  if "masked_words_text" in trained:
    results.append(_guessed(run, examples, "_text", from_text, tuple({"segment"} & set(examples.features))))
  if "next_sentence" in trained:
    results.append(_follows(run, examples))
  return results


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


def with_picture(model: Any, batch: Any) -> Int[Array, "batch most"]:
  """The likeliest word at each place, given picture and text."""
  image, text = model.encode({"image": batch["image"]})["image"], model.encode_words(batch["hidden"])
  return _likeliest(model, model.fuse(image, text)["text"].tokens, batch)


def from_text(model: Any, batch: Any) -> Int[Array, "batch most"]:
  """The likeliest word at each place, given the text alone."""
  segment = {"segment": batch["segment"]} if "segment" in batch else {}
  return _likeliest(model, model.encode_words(batch["hidden"], **segment).tokens, batch, fused=False)


def second_follows(model: Any, batch: Any) -> Int[Array, "batch"]:
  """1 where the second text follows the first."""
  text = model.encode_words(batch["text"], segment=batch["segment"])
  return jnp.argmax(model.next_logits(text.pooled), axis=-1)


def _likeliest(model: Any, tokens: Array, batch: Any, **which: bool) -> Int[Array, "batch most"]:
  return jnp.argmax(model.word_logits(take_positions(tokens, batch["places"]), **which), axis=-1)


def _guessed(run: Any, examples: Examples, suffix: str, ask: Any, names: tuple[str, ...]) -> Result:
  """Accuracy over hidden words; chance is naming the commonest of them every time."""
  shown = shuffled_pictures(examples) if suffix == "_shuffled" else examples
  right, truth = [], []
  asked, kept = (*names, "hidden", "places"), ("text", "places", "counted")
  for batch, guess in over_batches(run, ask, _hidden(run, shown), asked, kept):
    ids = np.take_along_axis(batch["text"], batch["places"], axis=1)
    right.append((guess == ids)[batch["counted"]])
    truth.append(ids[batch["counted"]])
  found, known = np.concatenate(right), np.concatenate(truth)
  if not len(known):
    raise UserError(f"no text of {examples.title} has a word of evaluation.masked_words: name others, or none")
  prior = np.max(np.unique(known, return_counts=True)[1]) / len(known)
  scores: Metrics = {"masked_word_accuracy": float(found.mean())}
  chance: Metrics = {"masked_word_accuracy": float(prior)}
  how = {"": "with the picture", "_shuffled": "with another picture", "_text": "from the text alone"}[suffix]
  title = f"{examples.title}: hidden words, {how}"
  name, control = f"{examples.name}_masked{suffix}", suffix == "_shuffled"
  return Task(run).result(name, "masked_words", title, examples, (scores, chance), control=control)


def _follows(run: Any, examples: Examples) -> Result:
  right, truth = [], []
  for batch, guess in over_batches(run, second_follows, batches(run, examples), ("text", "segment"), ("next",)):
    right.append(guess == batch["next"])
    truth.append(batch["next"])
  share = float(np.concatenate(truth).mean())
  found = {"next_accuracy": float(np.concatenate(right).mean())}, {"next_accuracy": max(share, 1 - share)}
  return Task(run).result(f"{examples.name}_next", "next_sentence", f"{examples.title}: next sentence", examples, found)


def shuffled_pictures(examples: Examples) -> Examples:
  """The control: every record with the picture of another."""
  other = other_texts(np.array([record["concept"] for record in examples.records]))
  records = [
    {**record, "image": examples.records[place if place >= 0 else own]["image"]}
    for own, (record, place) in enumerate(zip(examples.records, other.tolist()))
  ]
  return Examples(examples.name, examples.title, records, tuple(f for f in examples.features if f != "relevance"))


def _hidden(run: Any, examples: Examples) -> Any:
  """Evaluation batches with "hidden", "places" and "counted" besides."""
  tokenizer = run.tokenizer
  wanted = masked_word_ids(run)
  for batch in batches(run, examples):
    hidden, places, counted = hide(
      batch["text"], batch["index"], mask_id=tokenizer.mask_id, special=tokenizer.special_ids, words=wanted
    )
    yield batch | {"hidden": hidden, "places": places, "counted": counted}


def masked_word_ids(run: Any) -> Int[np.ndarray, " words"] | None:
  """The ids of evaluation.masked_words; None where it is empty. Raises UserError for a word of several tokens."""
  words = run.experiment.evaluation.masked_words
  if not words:
    return None
  ids = [[i for i in row.tolist() if i not in run.tokenizer.special_ids] for row in run.tokenizer(list(words))]
  broken = [word for word, found in zip(words, ids) if len(found) != 1]
  if broken:
    raise UserError(f"evaluation.masked_words: {', '.join(broken)} is not one token of this vocabulary; name others")
  return np.array([found[0] for found in ids])

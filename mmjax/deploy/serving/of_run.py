"""A trained run as a service sees it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mmjax.deploy.serving.served import (
  ANSWER,
  ATTENTION,
  CAPTION,
  CLASSIFY,
  CLASSIFY_TEXT,
  EMBED_IMAGE,
  EMBED_TEXT,
  Ability,
  Look,
  Pixels,
  Served,
  powers,
)
from mmjax.errors import UserError
from mmjax.evaluate.attention_maps import explainer, maps_of
from mmjax.evaluate.forward import over_rows, text_tokenizer
from mmjax.evaluate.questions import WriteAnswers, answer_logits, until_end
from mmjax.evaluate.traits import terms
from mmjax.evaluators.attention import word_score
from mmjax.evaluators.captions import WriteCaptions, WrittenCaptions, written
from mmjax.evaluators.written_answers import WrittenAnswers
from mmjax.models.config import image_size, towers
from mmjax.models.protocols import Answers, Classifies
from mmjax.report.overlay import seen_pixels
from mmjax.report.showcase import combined, readable_words, shares

if TYPE_CHECKING:
  from mmjax.run import Run

MOST_WRITTEN = 8
"""Largest batch of captions and answers that are written: their search for the best text takes long to compile."""
_TEXT = "a picture"


@dataclasses.dataclass(frozen=True)
class Ready:
  """Transform of images that are transformed already: a service transforms them one by one, before the batch."""

  size: int
  shape: tuple[int, ...]
  max_pixels: int

  def __call__(self, picture: Pixels, *, record: str = "") -> Pixels:
    return picture


def of_run(run: Run, max_batch: int = 32) -> Served:
  """Find out what a run can do.

  Args:
    run: the run.
    max_batch: largest batch, a power of two.
  Raises: UserError: there is nothing in it that a service offers.
  """
  side = image_size(run.experiment.model)
  shape = run.transform.shape if side else ()
  ready = dataclasses.replace(run, image=Ready(side, shape, run.experiment.data.max_pixels)) if side else run
  blank = np.zeros(shape, np.float32)
  sizes, few = powers(max_batch), powers(min(max_batch, MOST_WRITTEN))
  found = {
    EMBED_IMAGE: Ability(lambda items: ready.encode_image(np.stack(items)), blank, sizes)
    if _embeds(run, "image")
    else None,
    EMBED_TEXT: Ability(ready.encode_text, _TEXT, sizes) if _embeds(run, "text") else None,
    CLASSIFY: Ability(ready.classify, blank, sizes) if _classifies(run, "image") else None,
    CLASSIFY_TEXT: Ability(ready.classify, _TEXT, sizes) if _classifies(run, "text") else None,
    CAPTION: _captions(ready, blank, few) if side else None,
    ANSWER: _answers(ready, blank, sizes, few) if side else None,
    ATTENTION: _attention(ready, blank) if side else None,
  }
  abilities = {name: ability for name, ability in found.items() if ability is not None}
  if not abilities:
    raise UserError(
      f"the run in {run.workdir} has nothing to serve: it neither embeds nor classifies images or texts, nor "
      "writes captions or answers"
    )
  classes = run.classes if {CLASSIFY, CLASSIFY_TEXT} & set(abilities) else ()
  name, scale = run.workdir.resolve().name, _logit_scale(run)
  preprocess = run.preprocess if side else None
  return Served(name, run.step, fingerprint(run), abilities, preprocess, classes, scale)


def fingerprint(run: Run) -> str:
  """Hash of the parameters of a run, with their paths, and of its transforms of images and texts."""
  found = hashlib.sha256(repr(run.transform).encode())
  if run.tokenizer is not None:
    found.update(repr(run.tokenizer.config).encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(run.params):
    array = np.asarray(leaf)
    found.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
    found.update(np.ascontiguousarray(array).tobytes())
  return found.hexdigest()


def _embeds(run: Run, tower: str) -> bool:
  """True if the run has embeddings of the array `image` or `text` that are trained to be compared."""
  model: Any = run.model
  has = tower in towers(run.experiment.model) and callable(getattr(model, f"encode_{tower}", None))
  return has and any(term.compares for term in run.experiment.objectives)


def _classifies(run: Run, tower: str) -> bool:
  """True if the run has a classifier of one array, `image` or `text`."""
  config: Any = run.experiment.model
  return bool(terms(run.experiment, Classifies)) and list(getattr(config, "towers", ())) == [tower]


def _logit_scale(run: Run) -> float:
  model: Any = run.model
  if not callable(getattr(model, "logit_scale", None)):
    return 100.0
  return float(model.apply({"params": run.params}, method="logit_scale"))


def _captions(run: Run, blank: Pixels, sizes: tuple[int, ...]) -> Ability | None:
  for each in run.by_stream().values():
    how = next(
      (one for one in each.experiment.evaluation.evaluators.values() if isinstance(one, WrittenCaptions)),
      WrittenCaptions(),
    )
    if how.applies(each.experiment):
      return Ability(functools.partial(_written, each, WriteCaptions.of(each, beams=how.beams)), blank, sizes)
  return None


def _written(run: Run, write: WriteCaptions, items: list[Pixels]) -> list[str]:
  return written(run, items, write, np.arange(len(items)))


def _answers(run: Run, blank: Pixels, sizes: tuple[int, ...], few: tuple[int, ...]) -> Ability | None:
  example = (blank, _TEXT)
  for each in run.by_stream().values():
    if terms(each.experiment, Answers) and each.tokenizer is not None:
      return Ability(functools.partial(_chosen, each), example, sizes)
    if WrittenAnswers().applies(each.experiment):
      write = dataclasses.replace(WriteAnswers.of(each), candidates=())
      return Ability(functools.partial(_said, each, write), example, few)
  return None


def _chosen(run: Run, items: list[tuple[Pixels, str]]) -> list[str]:
  """Answers of the classifier."""
  logits = np.concatenate(list(_over(run, answer_logits, items)))
  return [text_tokenizer(run).answers[place] for place in logits.argmax(1).tolist()]


def _said(run: Run, write: WriteAnswers, items: list[tuple[Pixels, str]]) -> list[str]:
  """Answers of the decoder."""
  tokenizer = text_tokenizer(run)
  ids = [row for part, _ in _over(run, write, items) for row in until_end(part, tokenizer.eos_id)]
  return [tokenizer.decode(row).strip() for row in ids]


def _over(run: Run, ask: Callable[..., Any], items: Sequence[tuple[Pixels, str]]) -> Any:
  images, ids = np.stack([image for image, _ in items]), text_tokenizer(run)([text for _, text in items])
  return over_rows(run, ask, len(items), lambda places: {"image": images[places], "text": ids[places]})


def _attention(run: Run, blank: Pixels) -> Ability | None:
  """Relevance of patches for words, one image and text at a time."""
  score = word_score(run.experiment)
  model: Any = run.experiment.model
  if score is None or run.tokenizer is None or not hasattr(getattr(model, "image", None), "grid"):
    return None
  grid = model.image.grid
  explain = explainer(run.model, score[0], grid**2)
  tokenizer = run.tokenizer

  data = run.experiment.data

  def look(item: tuple[Pixels, str]) -> Look:
    ids, seen = tokenizer([item[1]]), seen_pixels(item[0], data.mean, data.std)
    batch: Any = {"image": item[0][None], "text": ids}
    maps = maps_of(explain(run.params, batch))
    words = readable_words(tokenizer, ids[0])
    if maps is None or not words:
      return Look((), np.zeros((0, grid, grid), np.float32), seen)
    relevance = combined(maps, None)[1]
    heat = np.stack([relevance[0, places].mean(0) for places, _ in words]).reshape(-1, grid, grid)
    return Look(tuple(word for _, word in words), shares(heat), seen)

  if not len(look((blank, _TEXT)).words):
    return None
  return Ability(lambda items: [look(item) for item in items], (blank, _TEXT), (1,))

"""Examples on the page: questions with answers and masks, captions, and where words look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.data.places import spread
from mmjax.data.records import PRIMARY
from mmjax.evaluate.answers import vqa_score
from mmjax.evaluate.attention_maps import AttentionMaps, Score, attention_maps
from mmjax.evaluate.examples import Examples, batches
from mmjax.evaluate.forward import over_batches, text_tokenizer
from mmjax.evaluate.images import Images
from mmjax.evaluate.questions import WriteAnswers, answer_logits, relevance_logits, until_end
from mmjax.evaluate.traits import terms
from mmjax.models.protocols import Answers, Grounds
from mmjax.report.overlay import heated, marked, seen_pixels, tile
from mmjax.report.page import Section

if TYPE_CHECKING:
  from mmjax.run import Run

SHOWN, LOOKED_AT, MOST_WORDS = 12, 6, 14
_SPREAD = '<p class="note">Spread evenly over the split: nobody picked the good ones.</p>'


def questions(run: Run, examples: Examples) -> Section:
  """Questions spread evenly over the split: answers right and wrong, and the pixels that they are said to be about."""
  some = chosen(examples, SHOWN)
  given = _answers(run, some, bool(terms(run.experiment, Answers)))
  grounds = terms(run.experiment, Grounds)
  masks = [logits > 0 for logits in _rows(run, relevance_logits, some)] if grounds else []
  lines = []
  for number, (record, pixels, answer) in enumerate(zip(some.records, _pixels(run, some), given, strict=True)):
    right = vqa_score(answer, record["answers"]) > 0
    truth = "" if right else f"; people say {escape(record['answer'])}"
    words = f'<b>{escape(record["question"])}</b><span class="rank">{_mark(right)} {escape(answer)}{truth}</span>'
    tiles = [(pixels, "picture")] + ([(marked(pixels, masks[number]), "relevant pixels")] if masks else [])
    lines.append(_line(words, tiles))
  return Section("questions", "Questions and answers", _SPREAD + "".join(lines))


def captions(run: Run, examples: Examples, write: Callable[[Images], Sequence[str]]) -> Section:
  """Captions written for images spread evenly over the split, and one of people's for each."""
  some = chosen(examples, SHOWN)
  said = write(Images(some.records, run.experiment.data))
  lines = []
  for record, pixels, caption in zip(some.records, _pixels(run, some), said, strict=True):
    known = record["captions"][PRIMARY][0]
    words = f'<b>{escape(caption) or "(nothing)"}</b><span class="rank">people say: {escape(known)}</span>'
    lines.append(_line(words, [(pixels, known)]))
  return Section("captions", "Captions", _SPREAD + "".join(lines))


def attention(run: Run, examples: Examples, score: Score, meaning: str, layer: int | None) -> Section | None:
  """One panel per word: how much it reads each patch, and how much that raises a score.

  Args:
    run: the run.
    examples: what the panels are chosen from.
    score: the number that is explained.
    meaning: the same in words.
    layer: the layer that is drawn; None: all together.
  Returns: the section; None where no layer lets words read patches.
  """
  some = chosen(examples, LOOKED_AT)
  batch = next(batches(run, some))
  rows = {name: batch[name][batch["valid"]] for name in ("image", "text")}
  model: Any = run.experiment.model
  grid = model.image.grid
  maps = attention_maps(run.model, run.params, rows, score, patches=grid**2)
  if maps is None:
    return None
  own, relevance = combined(maps, layer)
  lines = []
  for number, pixels in enumerate(_pixels(run, some)):
    words = readable_words(text_tokenizer(run), rows["text"][number])
    rows_of = lambda found, n=number, w=words: np.stack([found[n, places].mean(0) for places, _ in w])
    heats = [shares(rows_of(found).reshape(-1, grid, grid)) for found in (own, relevance)]
    panels = "".join(
      f'<figure>{_image(heated(pixels, heats[0][n]), word)}{_image(heated(pixels, heats[1][n]), word)}'
      f"<figcaption>{escape(word)}</figcaption></figure>"
      for n, (_, word) in enumerate(words)
    )  # fmt: skip
    lines.append(f'<div class="query looks"><figure>{_image(pixels, "picture")}</figure>{panels}</div>')
  which = "the mean over layers" if layer is None else f"layer {layer}"
  note = _note(
    f"Above: how much each word reads each patch ({which}). Below: that times its gradient, if positive: how much it "
    f"raises the score of {meaning}. Yellow is the most in an image's row, dark blue nothing."
  )
  return Section("attention", "Where words look", note + "".join(lines))


def combined(maps: AttentionMaps, layer: int | None) -> tuple[np.ndarray, np.ndarray]:
  """(attention, relevance), [batch, words, patches]: of one layer, or the mean and the sum over all.

  Raises: IndexError for a layer that is not there.
  """
  if layer is not None:
    return maps.attention[layer], maps.relevance[layer]
  return maps.attention.mean(0), maps.relevance.sum(0)


def shares(heat: np.ndarray) -> np.ndarray:
  """In parts of the largest value of all words; zeros where there is none."""
  return heat / max(float(heat.max(initial=0.0)), 1e-12)


def readable_words(tokenizer: Any, ids: np.ndarray) -> list[tuple[list[int], str]]:
  """(places of its pieces, word) of the first words, and of the token that a text begins with, if there is one."""
  named = {tokenizer.cls_id: "[class]", tokenizer.bos_id: "[begin]"}
  words: list[tuple[list[int], str]] = []
  before = ""
  for place, token in enumerate(ids.tolist()):
    if token in named and place == 0:
      words.append(([place], named[token]))
    elif token not in tokenizer.special_ids:
      text = tokenizer.decode(ids[: place + 1])
      piece = text.removeprefix(before)
      if not before or piece[:1].isspace():
        words.append(([place], piece.strip()))
      else:
        words[-1] = ([*words[-1][0], place], words[-1][1] + piece)
      before = text
  return words[:MOST_WORDS]


def chosen(examples: Examples, count: int) -> Examples:
  """Choose `count` evenly spread records."""
  records = [examples.records[place] for place in spread(len(examples), count)]
  return Examples(examples.name, examples.title, records, examples.features)


def _answers(run: Run, examples: Examples, by_class: bool) -> list[str]:
  if by_class:
    return [text_tokenizer(run).answers[np.argmax(logits)] for logits in _rows(run, answer_logits, examples)]
  ids = np.stack([said for said, _ in zip(*_pairs(run, WriteAnswers.of(run), examples), strict=True)])
  return [text_tokenizer(run).decode(row) for row in until_end(ids, text_tokenizer(run).eos_id)]


def _rows(run: Run, ask: Any, examples: Examples) -> list[np.ndarray]:
  found = over_batches(run, ask, batches(run, examples), ("image", "text"))
  return [row for _, part in found for row in part]


def _pairs(run: Run, ask: Any, examples: Examples) -> tuple[list[np.ndarray], list[np.ndarray]]:
  found = [part for _, part in over_batches(run, ask, batches(run, examples), ("image", "text"))]
  return [row for part in found for row in part[0]], [row for part in found for row in part[1]]


def _pixels(run: Run, examples: Examples) -> list[np.ndarray]:
  data = run.experiment.data
  pictures = Images(examples.records, data)
  return [seen_pixels(run.preprocess(pictures[n]), data.mean, data.std) for n in range(len(examples))]


def _line(words: str, tiles: Sequence[tuple[np.ndarray, str]]) -> str:
  images = "".join(_image(pixels, name) for pixels, name in tiles)
  return f'<div class="query"><div class="tiles large">{images}</div><div class="what wide">{words}</div></div>'


def _image(pixels: np.ndarray, name: str) -> str:
  shown = escape(name, quote=True)
  return f'<img class="large" src="{tile(pixels)}" alt="{shown}" title="{shown}">'


def _mark(right: bool) -> str:
  return '<span class="best">✓</span>' if right else "✗"


def _note(text: str) -> str:
  return f'<p class="note">{escape(text)}</p>'

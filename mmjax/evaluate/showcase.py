"""Examples on the page: questions with answers and masks, captions, and where words look."""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np

from mmjax.data.records import PRIMARY
from mmjax.data.sources.emoji import Emoji
from mmjax.evaluate import emoji
from mmjax.evaluate.answers import vqa_score
from mmjax.evaluate.attention_maps import AttentionMaps, attention_maps
from mmjax.evaluate.examples import Examples, batches, spread, validation_examples
from mmjax.evaluate.explained import answer_score, match_score, words_score
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.overlay import heated, marked, seen_pixels, tile
from mmjax.evaluate.page import Section
from mmjax.evaluate.pictures import Pictures
from mmjax.evaluate.questions import WriteAnswers, answer_logits, relevance_logits, until_end
from mmjax.evaluate.written import write_captions

SHOWN, LOOKED_AT, MOST_WORDS = 12, 6, 14
_SCORES = (
  ("answer", answer_score, "the answer that the model gives"),
  ("matching", match_score, "that picture and text belong together"),
  ("masked_words", words_score, "the text's own words"),
  ("masked_both", words_score, "the text's own words"),
)


def sections(run: Any) -> list[Section]:
  """Whatever can be shown of what the run was trained for."""
  trained = {objective.name for objective in run.experiment.objectives}
  show: list[tuple[set[str], tuple[str, str], Callable[[Any, Examples], str]]] = [
    ({"answer", "answer_text"}, ("questions", "Questions and answers"), questions),
    ({"caption"}, ("captions", "Captions"), captions),
    ({name for name, _, _ in _SCORES}, ("attention", "Where words look"), attention),
  ]
  wanted = [(place, draw) for names, place, draw in show if names & trained]
  if not wanted:
    return []
  found = emoji.examples(run) if isinstance(run.experiment.data.source, Emoji) else validation_examples(run)
  drawn = [(*place, draw(run, found)) for place, draw in wanted]
  return [section for section in drawn if section[2]]


def questions(run: Any, examples: Examples) -> str:
  """Questions spread evenly over the split: answers right and wrong, and the pixels that they are said to be about."""
  some = chosen(examples, SHOWN)
  trained = {objective.name for objective in run.experiment.objectives}
  given = _answers(run, some, "answer" in trained)
  masks = [logits > 0 for logits in _rows(run, relevance_logits, some)] if "relevance" in trained else []
  lines = []
  for number, (record, pixels, answer) in enumerate(zip(some.records, _pixels(run, some), given, strict=True)):
    right = vqa_score(answer, record["answers"]) > 0
    truth = "" if right else f"; people say {escape(record['answer'])}"
    words = f'<b>{escape(record["question"])}</b><span class="rank">{_mark(right)} {escape(answer)}{truth}</span>'
    tiles = [(pixels, "picture")] + ([(marked(pixels, masks[number]), "relevant pixels")] if masks else [])
    lines.append(_line(words, tiles))
  return _note("Spread evenly over the split: nobody picked the good ones.") + "".join(lines)


def captions(run: Any, examples: Examples) -> str:
  """Captions written for pictures spread evenly over the split, and one of people's for each."""
  some = chosen(examples, SHOWN)
  said = write_captions(run, Pictures(some.records, run.experiment.data))
  lines = []
  for record, pixels, caption in zip(some.records, _pixels(run, some), said, strict=True):
    known = record["captions"][PRIMARY][0]
    words = f'<b>{escape(caption) or "(nothing)"}</b><span class="rank">people say: {escape(known)}</span>'
    lines.append(_line(words, [(pixels, known)]))
  return _note("Spread evenly over the split: nobody picked the good ones.") + "".join(lines)


def attention(run: Any, examples: Examples) -> str:
  """One panel per word: how much it reads each patch, and how much that raises the score; "" without such layers."""
  trained = {objective.name for objective in run.experiment.objectives}
  score, meaning = next((score, meaning) for name, score, meaning in _SCORES if name in trained)
  some = chosen(examples, LOOKED_AT)
  batch = next(batches(run, some))
  rows = {name: batch[name][batch["valid"]] for name in ("image", "text")}
  grid = run.experiment.model.image.grid
  maps = attention_maps(run.model, run.params, rows, score, patches=grid**2)
  if maps is None:
    return ""
  own, relevance = combined(maps, run.experiment.evaluation.attention_layer)
  lines = []
  for number, pixels in enumerate(_pixels(run, some)):
    words = readable_words(run.tokenizer, rows["text"][number])
    rows_of = lambda found, n=number, w=words: np.stack([found[n, places].mean(0) for places, _ in w])
    heats = [shares(rows_of(found).reshape(-1, grid, grid)) for found in (own, relevance)]
    panels = "".join(
      f'<figure>{_image(heated(pixels, heats[0][n]), word)}{_image(heated(pixels, heats[1][n]), word)}'
      f"<figcaption>{escape(word)}</figcaption></figure>"
      for n, (_, word) in enumerate(words)
    )  # fmt: skip
    lines.append(f'<div class="query looks"><figure>{_image(pixels, "picture")}</figure>{panels}</div>')
  layer = run.experiment.evaluation.attention_layer
  which = "the mean over layers" if layer is None else f"layer {layer}"
  return _note(
    f"Above: how much each word reads each patch ({which}). Below: that times its gradient, if positive: how much it "
    f"raises the score of {meaning}. Yellow is the most in a picture's row, dark blue nothing."
  ) + "".join(lines)


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
  """That many records, evenly spread."""
  records = [examples.records[place] for place in spread(len(examples), count)]
  return Examples(examples.name, examples.title, records, examples.features)


def _answers(run: Any, examples: Examples, by_class: bool) -> list[str]:
  if by_class:
    return [run.tokenizer.answers[np.argmax(logits)] for logits in _rows(run, answer_logits, examples)]
  ids = np.stack([said for said, _ in zip(*_pairs(run, WriteAnswers.of(run), examples), strict=True)])
  return [run.tokenizer.decode(row) for row in until_end(ids, run.tokenizer.eos_id)]


def _rows(run: Any, ask: Any, examples: Examples) -> list[np.ndarray]:
  found = over_batches(run, ask, batches(run, examples), ("image", "text"))
  return [row for _, part in found for row in part]


def _pairs(run: Any, ask: Any, examples: Examples) -> tuple[list[np.ndarray], list[np.ndarray]]:
  found = [part for _, part in over_batches(run, ask, batches(run, examples), ("image", "text"))]
  return [row for part in found for row in part[0]], [row for part in found for row in part[1]]


def _pixels(run: Any, examples: Examples) -> list[np.ndarray]:
  data = run.experiment.data
  pictures = Pictures(examples.records, data)
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

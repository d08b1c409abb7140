"""Images on the page: retrieval grids, a similarity matrix, neighbours across artists."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmjax.data.places import spread
from mmjax.evaluate.images import Images
from mmjax.evaluate.metrics import retrieval_ranks
from mmjax.evaluate.retrieval import Embedded
from mmjax.report.figures import color_scale, heat_map
from mmjax.report.page import Section, missing

if TYPE_CHECKING:
  from mmjax.run import Run

QUERIES, SHOWN, BATCH, NEIGHBOURS = 12, 10, 16, 5


@dataclass(frozen=True)
class Shelf:
  """Images that can be retrieved and shown."""

  name: str
  records: Sequence[Any]
  embedded: Embedded
  run: Run

  def thumbnail(self, index: int) -> str:
    """A data URI, at most 72 pixels wide."""
    record = self.records[index]
    picture = Images([record], self.run.experiment.data)[0]
    picture = picture if picture.mode == "RGBA" else picture.convert("RGB")
    picture.thumbnail((72, 72), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

  def label(self, index: int) -> str:
    return self.records[index]["captions"]["name"][0]


@dataclass(frozen=True)
class Exhibition:
  """Contents of the image sections: a shelf to search by text, the texts, and shelves to compare artists."""

  shelf: Shelf
  captions: Sequence[str]
  texts: Embedded
  others: Sequence[Shelf]
  held_out: np.ndarray
  """True for texts of concepts that were not in training."""


HEADINGS = {
  "text-to-image": "Text to image",
  "similarity": "Similarity of a batch",
  "neighbours": "Neighbours across artists",
}
"""Headings of the sections, by anchor."""


def retrieval_sections(show: Exhibition) -> list[Section]:
  """Text to image, the similarities of a batch, and the neighbours across artists."""
  texts = "concepts trained on, and then over others" if show.others else "the validation split"
  shelf = escape(show.shelf.name)
  return [
    _section(
      "text-to-image",
      f"The nearest images by {shelf} for every text, out of {len(show.shelf.records):,}. Texts are spread evenly "
      f"over {texts}.",
      text_to_image(show),
    ),
    _section(
      "similarity",
      "Cosine between images (rows) and texts (columns). What belongs together is framed, on the diagonal.",
      similarity(show),
    ),
    _section(
      "neighbours",
      f"For an image by {shelf}, the nearest images by the others; right ones show the same emoji.",
      neighbours(show),
    )
    if show.others
    else Section("neighbours", HEADINGS["neighbours"], missing("Only the emoji data has several artists to compare.")),
  ]


def _section(anchor: str, note: str, html: str) -> Section:
  return Section(anchor, HEADINGS[anchor], f'<p class="note">{note}</p>{html}')


def evenly(places: np.ndarray, count: int) -> list[int]:
  """`count` of the places, evenly spread: nobody picked the good ones."""
  return [int(places[chosen]) for chosen in spread(len(places), count)]


def text_to_image(show: Exhibition) -> str:
  """Queries and the nearest images, right and wrong marked."""
  seen, unseen = np.flatnonzero(~show.held_out), np.flatnonzero(show.held_out)
  queries = evenly(seen, QUERIES - min(len(unseen), QUERIES // 2)) + evenly(unseen, QUERIES // 2)
  chosen = show.texts[np.array(queries)]
  order = _nearest(chosen.rows, show.shelf.embedded.rows, SHOWN)
  found = retrieval_ranks(chosen.rows, show.shelf.embedded.rows, chosen.ids, show.shelf.embedded.ids)
  lines = []
  for query, nearest, rank, concept in zip(queries, order, found.tolist(), chosen.ids.tolist()):
    tiles = "".join(_tile(show.shelf, index, show.shelf.embedded.ids[index] == concept) for index in nearest)
    unseen_concept = "; concept never trained on" if show.held_out[query] and show.others else ""
    note = f'<span class="rank">right one at rank {rank}{unseen_concept}</span>'
    label = f"<b>{escape(show.captions[query])}</b>{note}"
    lines.append(f'<div class="query"><div class="what">{label}</div><div class="tiles">{tiles}</div></div>')
  return "".join(lines)


def similarity(show: Exhibition) -> str:
  """The cosines of a batch of images and their texts."""
  texts = spread(len(show.texts), BATCH)
  by_concept = {concept: place for place, concept in enumerate(show.shelf.embedded.ids.tolist())}
  texts = [place for place in texts if int(show.texts.ids[place]) in by_concept]
  images = [by_concept[int(show.texts.ids[place])] for place in texts]
  matrix = show.shelf.embedded.rows[images] @ show.texts.rows[texts].T
  thumbnails = [show.shelf.thumbnail(index) for index in images]
  drawing = heat_map(matrix, thumbnails, [show.captions[place] for place in texts])
  return drawing + color_scale(float(matrix.min()), float(matrix.max()))


def neighbours(show: Exhibition) -> str:
  """An image of one artist, and the nearest ones of the others."""
  queries = spread(len(show.shelf.records), QUERIES)
  rows = show.shelf.embedded.rows[queries]
  order = {other.name: _nearest(rows, other.embedded.rows, NEIGHBOURS) for other in show.others}
  lines = []
  for row, query in enumerate(queries):
    concept = show.shelf.embedded.ids[query]
    groups = "".join(
      f'<div class="artist"><span>{escape(other.name)}</span><div class="tiles">'
      + "".join(_tile(other, index, other.embedded.ids[index] == concept) for index in order[other.name][row])
      + "</div></div>"
      for other in show.others
    )
    label = f"{_image(show.shelf, query)}<b>{escape(show.shelf.label(query))}</b>"
    lines.append(f'<div class="query"><div class="what pictured">{label}</div>{groups}</div>')
  return "".join(lines)


def _nearest(rows: np.ndarray, gallery: np.ndarray, count: int) -> np.ndarray:
  return np.argsort(-(rows @ gallery.T), axis=1, kind="stable")[:, :count]


def _tile(shelf: Shelf, index: int, right: bool) -> str:
  mark = '<i aria-label="right">✓</i>' if right else '<i aria-label="wrong">✗</i>'
  return f'<div class="tile {"right" if right else "wrong"}">{_image(shelf, index)}{mark}</div>'


def _image(shelf: Shelf, index: int) -> str:
  name = escape(shelf.label(index), quote=True)
  return f'<img src="{shelf.thumbnail(index)}" alt="{name}" title="{name}">'

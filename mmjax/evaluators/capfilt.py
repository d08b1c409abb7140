"""BLIP's CapFilt: a model writes a caption for every training picture, and filters these and the ones it had."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from rich.progress import track

from mmjax.data import make_source
from mmjax.data.captions import text_fault
from mmjax.data.recaption import write_captions
from mmjax.data.records import PRIMARY
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.images import Images
from mmjax.evaluate.pairs import Pairs
from mmjax.evaluators.captions import caption_writer

if TYPE_CHECKING:
  from mmjax.run import Run

_AT_ONCE = 512  # records whose encoded pictures and texts are held in memory


@dataclasses.dataclass(frozen=True)
class Filtered:
  """Result of captioning and filtering a training split.

  Attributes:
    records: how many there were.
    kept: how many still have a caption.
    given, given_kept: captions the data had, and those of them that match their picture.
    written, written_kept: captions the model wrote that the data did not have, and those that match.
  """

  records: int = 0
  kept: int = 0
  given: int = 0
  given_kept: int = 0
  written: int = 0
  written_kept: int = 0


def caption_and_filter(run: Run, path: str | Path, *, threshold: float = 0.0) -> Filtered:
  """Writes the file for --data.captions-from: what a run's match head keeps of given and written captions.

  Li et al. 2022 (BLIP), section 3.3. Every caption of any kind is kept or dropped by itself; the written one is added
  to the main ones. A record none of whose main captions is kept is left out.

  Args:
    run: a trained model with a caption decoder and a match head; its configuration names the training data.
    path: the file to write.
    threshold: captions whose match logit is above it are kept.
  """
  source = make_source(run.experiment.data, "train")
  counts: Counter[str] = Counter()
  rows = []
  starts = range(0, len(source), _AT_ONCE)
  for start in track(starts, description="captioning and filtering", disable=len(starts) < 2):
    indices = range(start, min(start + _AT_ONCE, len(source)))
    records = [source[index] for index in indices]
    for index, record, (kept, found) in zip(indices, records, _filtered(run, records, threshold), strict=True):
      counts += found
      if kept.get(PRIMARY):
        rows.append((index, record["id"], kept))
  write_captions(path, rows)
  return Filtered(records=len(source), kept=len(rows), **counts)


def _filtered(
  run: Run, records: Sequence[Any], threshold: float
) -> Iterator[tuple[Mapping[str, Sequence[str]], Counter[str]]]:
  """For every record (the captions to keep, by kind; how many there were and are, by Filtered's names)."""
  new = caption_writer(run).write(run, Images(records, run.experiment.data))
  candidates = [_candidates(record["captions"], text) for record, text in zip(records, new, strict=True)]
  logits = _match(run, records, candidates)
  for record, proposed, scores in zip(records, candidates, logits, strict=True):
    kept: dict[str, list[str]] = {}
    found: Counter[str] = Counter()
    for (kind, text), score in zip(proposed, scores, strict=True):
      whose = "given" if text in record["captions"].get(kind, ()) else "written"
      found[whose] += 1
      if score > threshold:
        found[f"{whose}_kept"] += 1
        kept.setdefault(kind, []).append(text)
    yield kept, found


def _candidates(captions: Mapping[str, Sequence[str]], new: str) -> list[tuple[str, str]]:
  """(kind, text) of every caption a picture could have; the written one only if it says anything, and anything new."""
  given = [(kind, text) for kind, texts in captions.items() for text in texts]
  return list(dict.fromkeys([*given, *([(PRIMARY, new)] if text_fault(new) is None else [])]))


def _match(
  run: Run, records: Sequence[Any], candidates: Sequence[Sequence[tuple[str, str]]]
) -> list[Float[np.ndarray, " candidates"]]:
  """The match logit of each record's picture with each of its candidates."""
  shown = [
    {**record, "captions": {PRIMARY: [text for _, text in proposed]}}
    for record, proposed in zip(records, candidates, strict=True)
  ]
  examples = Examples("training", "Training", shown, ("image", "text"))
  pairs = Pairs(run, examples)
  images = np.repeat(np.arange(len(shown)), [len(proposed) for proposed in candidates])
  scores = pairs.match(images, np.arange(len(images)))  # the captions of one image after those of another
  return np.split(scores, np.cumsum([len(proposed) for proposed in candidates])[:-1])

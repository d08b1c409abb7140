"""BLIP's CapFilt: a model writes a caption for every training image, and a filter keeps what matches the image."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from mmjax.evaluators.bootstrapped import CapFilt, capfilt_settings
from mmjax.evaluators.captions import WriteCaptions, written

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig
  from mmjax.run import Run

_AT_ONCE = 512  # records whose encoded images and texts are held in memory


@dataclasses.dataclass(frozen=True)
class Filtered:
  """Result of captioning and filtering a training split.

  Attributes:
    records: how many there were.
    kept: how many still have a caption.
    given, given_kept: captions the data had, and those of them that match their image.
    written, written_kept: captions the model wrote that the data did not have, and those that match.
  """

  records: int = 0
  kept: int = 0
  given: int = 0
  given_kept: int = 0
  written: int = 0
  written_kept: int = 0


def caption_and_filter(
  captioner: Run,
  path: str | Path,
  *,
  judge: Run | None = None,
  data: DataConfig | None = None,
  settings: CapFilt | None = None,
) -> Filtered:
  """Writes the file for --data.captions-from: what a match head keeps of given and written captions.

  Li et al. 2022 (BLIP), section 3.3: captioner and filter are the pretrained model, each fine-tuned on clean data by
  itself. Every caption of any kind is kept or dropped by itself; the written one is added to the main ones. A record
  none of whose main captions is kept is left out.

  Args:
    captioner: a run whose model writes captions.
    path: the file to write.
    judge: a run whose match head filters; None: the captioner.
    data: the data whose training split is captioned; None: those of the captioner.
    settings: how captions are written and kept; None: those of the captioner's configuration.
  """
  data = captioner.experiment.data if data is None else data
  settings = capfilt_settings(captioner.experiment) if settings is None else settings
  work = Bootstrap(captioner, captioner if judge is None else judge, settings)
  source = make_source(data, "train")
  counts: Counter[str] = Counter()
  rows = []
  starts = range(0, len(source), _AT_ONCE)
  for start in track(starts, description="captioning and filtering", disable=len(starts) < 2):
    indices = range(start, min(start + _AT_ONCE, len(source)))
    records = [source[index] for index in indices]
    for index, record, judged in zip(indices, records, judge_captions(work, records, indices), strict=True):
      found, kept = _counts(record, judged), _by_kind(judged)
      counts += found
      if kept.get(PRIMARY):
        rows.append((index, record["id"], kept))
  write_captions(path, rows)
  return Filtered(records=len(source), kept=len(rows), **counts)


class Bootstrap(NamedTuple):
  """Models and settings of CapFilt.

  Attributes:
    captioner: writes captions.
    judge: its match head filters.
    settings: how captions are written and kept.
  """

  captioner: Run
  judge: Run
  settings: CapFilt


class Judged(NamedTuple):
  """A caption that an image could have.

  Attributes:
    kind: of the caption; a written one is of the main kind.
    text: the caption.
    kept: True if it matches the image.
  """

  kind: str
  text: str
  kept: bool


def judge_captions(work: Bootstrap, records: Sequence[Any], numbers: Sequence[int]) -> Iterator[list[Judged]]:
  """For every record, its captions and the one that is written for it, each judged.

  Args:
    work: models and settings.
    records: images with captions.
    numbers: indices of the records in their source. A sampled caption depends on its image, this number and the seed.
  """
  captioner, judge, settings = work
  write = WriteCaptions.of(captioner, beams=settings.beams, top_p=settings.top_p, seed=settings.seed)
  images = Images(records, captioner.experiment.data)
  new = written(captioner, images, write, np.array(numbers))
  candidates = [_candidates(record["captions"], text) for record, text in zip(records, new, strict=True)]
  for proposed, scores in zip(candidates, _match(judge, records, candidates), strict=True):
    yield [
      Judged(kind, text, bool(score > settings.threshold)) for (kind, text), score in zip(proposed, scores, strict=True)
    ]


def _counts(record: Any, judged: Sequence[Judged]) -> Counter[str]:
  """Numbers of captions that were given and written, and of those that are kept, by Filtered's names."""
  found: Counter[str] = Counter()
  for kind, text, kept in judged:
    whose = "given" if text in record["captions"].get(kind, ()) else "written"
    found.update([whose, *[f"{whose}_kept"] * kept])
  return found


def _by_kind(judged: Sequence[Judged]) -> dict[str, list[str]]:
  """The captions that are kept, by kind."""
  kept: dict[str, list[str]] = {}
  for kind, text, good in judged:
    if good:
      kept.setdefault(kind, []).append(text)
  return kept


def _candidates(captions: Mapping[str, Sequence[str]], new: str) -> list[tuple[str, str]]:
  """(kind, text) of every caption an image could have; the written one only if it says anything, and anything new."""
  given = [(kind, text) for kind, texts in captions.items() for text in texts]
  return list(dict.fromkeys([*given, *([(PRIMARY, new)] if text_fault(new) is None else [])]))


def _match(
  run: Run, records: Sequence[Any], candidates: Sequence[Sequence[tuple[str, str]]]
) -> list[Float[np.ndarray, " candidates"]]:
  """The match logit of each record's image with each of its candidates."""
  shown = [
    {**record, "captions": {PRIMARY: [text for _, text in proposed]}}
    for record, proposed in zip(records, candidates, strict=True)
  ]
  examples = Examples("training", "Training", shown, ("image", "text"))
  pairs = Pairs(run, examples)
  images = np.repeat(np.arange(len(shown)), [len(proposed) for proposed in candidates])
  scores = pairs.match(images, np.arange(len(images)))  # the captions of one image after those of another
  return np.split(scores, np.cumsum([len(proposed) for proposed in candidates])[:-1])

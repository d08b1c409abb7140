"""Drift: the embeddings of a service, compared with those of the data of the run.

A shift is told from chance by a bootstrap over the reference embeddings. Dimensions of embeddings are correlated, so
that no table of a distribution would do. Requests that come together are alike, too, such as a folder in the order of
its names. So draws are also made of neighbours in the order of the data (a moving block bootstrap, Künsch 1989). The
larger of both distances is the limit.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from rich.console import Console
from rich.table import Table

from mmjax.deploy.serving.statistics import Moments, merged, moments, read_statistics
from mmjax.errors import UserError

if TYPE_CHECKING:
  from mmjax.deploy.loading import Loaded
  from mmjax.run import Run

DRAWS = 400
"""Draws of each bootstrap."""
LEVEL = 0.99
"""A measure above this share of the draws of all its kind is no chance."""
LEAST_SHIFT, LEAST_SPREAD = 0.1, 0.1
"""Smaller shifts are not reported, however sure they are."""
LEAST_BLOCKS = 4
"""Blocks of neighbours that the reference has, at least: a draw of as many embeddings consists of so many."""
STRETCHES = 16
"""Stretches of neighbours that are taken of data that are larger than --records."""
MOST_DRAWN = 2000  # embeddings that one draw has, at most; what is rarer than that is judged as if there were so many


@dataclasses.dataclass(frozen=True)
class Drift:
  """Distance of some embeddings from the reference.

  Attributes:
    shift: root mean square, over dimensions, of the difference of the means in standard deviations of the reference.
    spread: root mean square of the logarithm of the ratio of the standard deviations.
    cosine: cosine of the two means.
    norm: difference of the mean norms.
  """

  shift: float
  spread: float
  cosine: float
  norm: float


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Result for one modality.

  Attributes:
    modality: "image" or "text".
    served: moments of the service.
    reference: moments of the data.
    drift: distance of all that was served.
    chance: distances that chance alone reaches, by measure.
    windows: (time in the middle, shift) of each line of the file.
  """

  modality: str
  served: Moments
  reference: Moments
  drift: Drift
  chance: Mapping[str, float]
  windows: Sequence[tuple[float, float]]

  @property
  def drifted(self) -> bool:
    """True if the mean or the spread differs by more than chance, and by enough to matter."""
    shifted = self.drift.shift > max(self.chance["shift"], LEAST_SHIFT)
    return shifted or self.drift.spread > max(self.chance["spread"], LEAST_SPREAD)


def distance(served: Moments, reference: Moments) -> Drift:
  """Compute the distance of moments from those of the reference. Dimensions that never vary are left out."""
  varies = _varies(reference.variance)
  shift, spread = _apart(
    served.mean[varies], served.variance[varies], reference.mean[varies], reference.variance[varies]
  )
  norms = max(float(np.linalg.norm(served.mean) * np.linalg.norm(reference.mean)), 1e-12)
  cosine = float(served.mean @ reference.mean) / norms
  return Drift(float(shift), float(spread), cosine, served.norm_mean - reference.norm_mean)


def _varies(variance: Float[np.ndarray, " dim"]) -> Bool[np.ndarray, " dim"]:
  """Dimensions that vary. Raises UserError if there are none."""
  varies = variance > 1e-12 + 1e-6 * float(variance.mean())
  if not varies.any():
    raise UserError("the reference embeddings are all the same: the model has collapsed, and nothing can be compared")
  return varies


def _apart(
  mean: Float[np.ndarray, "*draws dim"],
  variance: Float[np.ndarray, "*draws dim"],
  from_mean: Float[np.ndarray, "*draws dim"],
  from_variance: Float[np.ndarray, "*draws dim"],
) -> tuple[Any, Any]:
  """(shift, spread) of moments, from those of a reference."""
  floor = 1e-12 + 1e-6 * from_variance.mean(-1, keepdims=True)
  from_variance = np.maximum(from_variance, floor)
  shift = (mean - from_mean) / np.sqrt(from_variance)
  spread = np.log(np.maximum(variance, floor) / from_variance) / 2
  return np.sqrt((shift**2).mean(-1)), np.sqrt((spread**2).mean(-1))


def by_chance(rows: Float[np.ndarray, "n dim"], count: int, *, seed: int = 0) -> dict[str, float]:
  """The LEVEL quantile of `distance` between two samples of the reference, by measure.

  It is the larger one of two kinds of samples: of single rows, and of blocks of neighbours.

  Args:
    rows: the reference embeddings, in the order of the data.
    count: size of one sample; that of the other is the number of rows.
    seed: seed of the draws.
  """
  rng, total, count = np.random.default_rng(seed), len(rows), min(count, MOST_DRAWN)
  rows = np.asarray(rows, np.float64)[:, _varies(moments(rows).variance)]
  rows -= rows.mean(0)
  blocks = max(1, min(count, total // LEAST_BLOCKS))
  found = []
  for length in sorted({1, blocks}):
    served = _drawn_moments(rows, [in_blocks(total, count, length, rng) for _ in range(DRAWS)])
    reference = _drawn_moments(rows, [rng.integers(0, total, total) for _ in range(DRAWS)])
    found.append(np.quantile(_apart(*served, *reference), LEVEL, axis=-1))
  return dict(zip(("shift", "spread"), np.max(found, axis=0).tolist(), strict=True))


def _drawn_moments(
  rows: Float[np.ndarray, "n dim"], draws: Sequence[Int[np.ndarray, " count"]]
) -> tuple[Float[np.ndarray, "draws dim"], Float[np.ndarray, "draws dim"]]:
  """(mean, variance) of rows at some places, for each draw of places. The mean of all rows is 0."""
  weights = np.stack([np.bincount(places, minlength=len(rows)) / len(places) for places in draws])
  mean = weights @ rows
  return mean, weights @ rows**2 - mean**2


def in_blocks(total: int, count: int, length: int, rng: np.random.Generator) -> Int[np.ndarray, " count"]:
  """Random places in blocks of neighbours. The first place follows the last one.

  Args:
    total: number of places that there are.
    count: number of places that are drawn.
    length: places of a block.
    rng: source of the random numbers.

  Example:
    >>> import numpy as np
    >>> in_blocks(5, 6, 3, np.random.default_rng(3)).tolist()
    [4, 0, 1, 0, 1, 2]
  """
  starts = rng.integers(0, total, -(-count // length))
  return ((starts[:, None] + np.arange(length)) % total).reshape(-1)[:count]


def stretches(total: int, most: int) -> list[int]:
  """Places of the reference: all, or stretches of neighbours, evenly spread.

  Args:
    total: number of records.
    most: number of places, at most.

  Example:
    >>> stretches(3, 9), stretches(64, 32)[:5]
    ([0, 1, 2], [0, 1, 4, 5, 8])
  """
  if total <= most:
    return list(range(total))
  pieces = min(STRETCHES, most)
  length = most // pieces
  return [total * piece // pieces + place for piece in range(pieces) for place in range(length)]


def judged(modality: str, lines: Sequence[Mapping[str, Any]], rows: Float[np.ndarray, "n dim"]) -> Verdict:
  """Compare the lines of a file with reference embeddings.

  Args:
    modality: "image" or "text", which some of the lines have.
    lines: result of `read_statistics`.
    rows: the reference embeddings.
  Raises: UserError: they have another dimension than the reference.
  """
  own = [line for line in lines if modality in line]
  served, reference = merged([line[modality] for line in own]), moments(rows)
  if served.mean.shape != reference.mean.shape:
    raise UserError(f"embeddings of the service have {len(served.mean)} dimensions, those of the run {rows.shape[1]}")
  middle = lambda line: (line["since"] + line["until"]) / 2
  windows = [(middle(line), distance(line[modality], reference).shift) for line in own]
  return Verdict(
    modality, served, reference, distance(served, reference), by_chance(rows, served.count), sorted(windows)
  )


def reference_rows(
  run: Run, split: str, records: int, modalities: Sequence[str], model: Run | Loaded | None = None
) -> dict[str, np.ndarray]:
  """Embeddings of images and main captions of a run's data, by modality, in the order of the data.

  Args:
    run: the run.
    split: "train" or "validation".
    records: number of records, at most.
    modalities: "image", "text" or both.
    model: what embeds them: an export. None: the run.
  """
  from mmjax.data import make_source
  from mmjax.data.records import PRIMARY
  from mmjax.evaluate.images import Images

  source, model = make_source(run.experiment.data, split), model or run
  chosen = [source[place] for place in stretches(len(source), records)]
  found: dict[str, np.ndarray] = {}
  if "image" in modalities:
    images = Images(chosen, run.experiment.data)
    rows = model.encode_image(images)
    found["image"] = np.delete(rows, sorted(images.bad), axis=0)
  if "text" in modalities:
    found["text"] = model.encode_text([record["captions"][PRIMARY][0] for record in chosen])
  return found


def report(options: Any) -> int:
  """Run the command `report`: print a table and write a page. The status is 0, with drift or without."""
  from mmjax.parallel.starting import set_up

  with set_up():
    return _report(options)


def _report(options: Any) -> int:
  from mmjax.deploy.loading import load
  from mmjax.deploy.serving import of_export, of_run
  from mmjax.deploy.serving.script import script_kinds
  from mmjax.files import write_atomically
  from mmjax.loading import load_run

  run = load_run(options.workdir, step=options.step, kinds=script_kinds(options.script))
  model = None if options.served is None else load(options.served)
  lines = read_statistics(
    options.statistics, of_run.fingerprint(run) if model is None else of_export.fingerprint(model)
  )
  modalities = [name for name in ("image", "text") if any(name in line for line in lines)]
  rows = reference_rows(run, options.split, options.records, modalities, model)
  verdicts = [judged(name, lines, rows[name]) for name in modalities]
  console = Console()
  console.print(_table(verdicts, options.split))
  path = options.out or options.workdir / "drift.html"
  write_atomically(path, drift_page(verdicts, options.split, run.workdir.resolve().name))
  console.print(f"page: {path}", highlight=False, soft_wrap=True, markup=False)
  return 0


_COLUMNS = ("embeddings", "shift of the mean", "by chance", "change of spread", "by chance", "cosine of means", "norm")


def _cells(verdict: Verdict) -> list[str]:
  drift, chance = verdict.drift, verdict.chance
  numbers = (drift.shift, chance["shift"], drift.spread, chance["spread"], drift.cosine)
  norm = f"{verdict.served.norm_mean:.3f} ({verdict.reference.norm_mean:.3f})"
  return [f"{verdict.served.count:,}", *(f"{number:.3f}" for number in numbers), norm]


def _said(verdict: Verdict) -> str:
  return "drifted" if verdict.drifted else "as the data"


def _table(verdicts: Sequence[Verdict], split: str) -> Table:
  """One column per modality: nine columns of numbers would not fit into a terminal."""
  table = Table(
    "", *(verdict.modality for verdict in verdicts),
    title=f"compared with the {split} data; shifts in its standard deviations",
  )  # fmt: skip
  rows = zip(*(_cells(verdict) for verdict in verdicts), strict=True)
  for name, cells in zip(_COLUMNS, rows, strict=True):
    table.add_row(name, *cells)
  table.add_row("verdict", *map(_said, verdicts))
  return table


def drift_page(verdicts: Sequence[Verdict], split: str, name: str) -> str:
  """The report as one HTML document.

  Args:
    verdicts: the results.
    split: the data that was compared with.
    name: name of the run.
  """
  from mmjax.report.page import Section, page

  head = "".join(f"<th>{escape(text)}</th>" for text in ("", *_COLUMNS, "verdict"))
  body = "".join(
    f"<tr><td><b>{verdict.modality}</b></td>{''.join(f'<td>{cell}</td>' for cell in _cells(verdict))}"
    f"<td>{'<b>drifted</b>' if verdict.drifted else _said(verdict)}</td></tr>"
    for verdict in verdicts
  )
  note = (
    f'<p class="note">Embeddings of the service, compared with those of the {escape(split)} data. A shift is in '
    "standard deviations of the data, as the root mean square over dimensions. Chance alone stays below the number "
    f"beside it in {LEVEL:.0%} of {DRAWS} draws from the data, of single records and of neighbours. Drifted: above "
    f"chance, and above {LEAST_SHIFT:g}.</p>"
  )
  table = f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
  charts = "".join(f"<h3>{verdict.modality}</h3>{_chart(verdict)}" for verdict in verdicts)
  return page(
    f"Drift: {name}",
    note,
    [Section("table", "All together", table), Section("time", "Over time", f'<div class="charts">{charts}</div>')],
  )


def _chart(verdict: Verdict) -> str:
  from mmjax.report.figures import line_chart

  times = [time for time, _ in verdict.windows]
  hours = [(time - times[0]) / 3600 for time in times]
  begun = datetime.datetime.fromtimestamp(times[0], datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
  limit = max(verdict.chance["shift"], LEAST_SHIFT)
  ends = [hours[0], max(hours[-1], hours[0] + 1e-3)]
  return line_chart(
    [(verdict.modality, hours, [shift for _, shift in verdict.windows])],
    ylabel="shift of the mean",
    xlabel=f"hours since {begun}",
    reference=("limit, all together", ends, [limit, limit]),
    zero=True,
  )

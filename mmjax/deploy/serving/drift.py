"""Drift: the embeddings of a service, compared with those of the data of the run.

A shift is told from chance by a bootstrap over the reference embeddings. Dimensions of embeddings are correlated, so
that no table of a distribution would do.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from mmjax.deploy.serving.statistics import Moments, merged, moments, read_statistics
from mmjax.errors import UserError

if TYPE_CHECKING:
  from mmjax.run import Run

DRAWS = 400
"""Draws of the bootstrap."""
LEVEL = 0.99
"""A measure above this share of the draws of all its kind is no chance."""
LEAST_SHIFT, LEAST_SPREAD = 0.1, 0.1
"""Smaller shifts are not reported, however sure they are."""
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
  floor = 1e-12 + 1e-6 * float(reference.variance.mean())
  varies = reference.variance > floor
  if not varies.any():
    raise UserError("the reference embeddings are all the same: the model has collapsed, and nothing can be compared")
  deviation = np.sqrt(reference.variance[varies])
  shift = (served.mean - reference.mean)[varies] / deviation
  spread = np.log(np.sqrt(np.maximum(served.variance[varies], floor)) / deviation)
  norms = max(float(np.linalg.norm(served.mean) * np.linalg.norm(reference.mean)), 1e-12)
  cosine = float(served.mean @ reference.mean) / norms
  rms = lambda values: float(np.sqrt(np.mean(values**2)))
  return Drift(rms(shift), rms(spread), cosine, served.norm_mean - reference.norm_mean)


def by_chance(rows: Float[np.ndarray, "n dim"], count: int, *, seed: int = 0) -> dict[str, float]:
  """The LEVEL quantile of `distance` between two random samples of the reference, by measure.

  Args:
    rows: the reference embeddings.
    count: size of one sample; that of the other is the number of rows.
    seed: seed of the draws.
  """
  rng, count = np.random.default_rng(seed), min(count, MOST_DRAWN)
  sample = lambda size: moments(rows[rng.integers(0, len(rows), size)])
  found = [distance(sample(count), sample(len(rows))) for _ in range(DRAWS)]
  return {name: float(np.quantile([getattr(one, name) for one in found], LEVEL)) for name in ("shift", "spread")}


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


def reference_rows(run: Run, split: str, records: int, modalities: Sequence[str]) -> dict[str, np.ndarray]:
  """Embeddings of images and main captions of a run's data, by modality.

  Args:
    run: the run.
    split: "train" or "validation".
    records: number of records, evenly spread over the split.
    modalities: "image", "text" or both.
  """
  from mmjax.data import make_source
  from mmjax.data.places import spread
  from mmjax.data.records import PRIMARY
  from mmjax.evaluate.images import Images

  source = make_source(run.experiment.data, split)
  chosen = [source[place] for place in spread(len(source), records)]
  found: dict[str, np.ndarray] = {}
  if "image" in modalities:
    images = Images(chosen, run.experiment.data)
    rows = run.encode_image(images)
    found["image"] = np.delete(rows, sorted(images.bad), axis=0)
  if "text" in modalities:
    found["text"] = run.encode_text([record["captions"][PRIMARY][0] for record in chosen])
  return found


def report(options: Any) -> int:
  """Run the command `report`: print a table and write a page. The status is 0, with drift or without."""
  from mmjax.deploy.serving.of_run import fingerprint
  from mmjax.files import write_atomically
  from mmjax.loading import load_run

  logging.getLogger("absl").setLevel(logging.ERROR)
  run = load_run(options.workdir, step=options.step)
  lines = read_statistics(options.statistics, fingerprint(run))
  modalities = [name for name in ("image", "text") if any(name in line for line in lines)]
  rows = reference_rows(run, options.split, options.records, modalities)
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
  table = Table(
    "", *_COLUMNS, "verdict", caption=f"compared with the {split} data; shifts in standard deviations of it"
  )
  for verdict in verdicts:
    table.add_row(verdict.modality, *_cells(verdict), _said(verdict))
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
    f"beside it in {LEVEL:.0%} of {DRAWS} draws. Drifted: above chance, and above {LEAST_SHIFT:g}.</p>"
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

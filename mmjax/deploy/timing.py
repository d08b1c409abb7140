"""Latency and throughput of an export by batch size, after a warm-up that compiles and fills caches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mmjax.deploy.formats import DeployError
from mmjax.deploy.loading import Loaded, load
from mmjax.deploy.standalone import BATCH

PERCENTILES = (50, 95, 99)


def benchmark(
  folder: str | Path, batches: Sequence[int] = (1, 8, 64), *, calls: int = 200, warm_up: int = 10
) -> list[dict[str, Any]]:
  """Time every part of an export.

  Args:
    folder: folder of the export.
    batches: batch sizes, at most mmjax.deploy.standalone.BATCH.
    calls: number of timed calls of each part with each batch size.
    warm_up: number of calls before, which are not timed.
  Returns: one row for each part and batch size: part, format, dtype, batch, p50_ms, p95_ms, p99_ms and per_second
    (examples a second: the batch size over the mean time).
  Raises: DeployError: the folder is no export, or a number is out of range.
  """
  if calls < 1 or warm_up < 1 or any(not 1 <= batch <= BATCH for batch in batches):
    raise DeployError(f"batch sizes go from 1 to {BATCH}, and calls and the warm-up from 1")
  model = load(folder)
  return [
    _row(model, part, batch, _seconds(model, part, batch, calls=calls, warm_up=warm_up))
    for part in model.parts
    for batch in batches
  ]


def zeros(model: Loaded, part: str, batch: int) -> dict[str, np.ndarray]:
  """Rows of zeros for a part."""
  inputs = model.parts[part]["inputs"]
  return {one["name"]: np.zeros((batch, *one["shape"][1:]), one["dtype"]) for one in inputs}


def _seconds(model: Loaded, part: str, batch: int, *, calls: int, warm_up: int) -> np.ndarray:
  arrays, found = zeros(model, part, batch), []
  for call in range(warm_up + calls):
    start = time.perf_counter()
    model.compute(part, arrays)
    if call >= warm_up:
      found.append(time.perf_counter() - start)
  return np.asarray(found)


def _row(model: Loaded, part: str, batch: int, seconds: np.ndarray) -> dict[str, Any]:
  quantiles = {f"p{p}_ms": round(1e3 * float(np.percentile(seconds, p)), 4) for p in PERCENTILES}
  about = {"part": part, "format": model.manifest["format"], "dtype": model.manifest["dtype"], "batch": batch}
  return about | quantiles | {"per_second": round(batch / float(seconds.mean()), 1)}


def table(rows: Sequence[dict[str, Any]]) -> Table:
  """Table of what `benchmark` returned."""
  made = Table(*rows[0]) if rows else Table()
  for row in rows:
    made.add_row(*map(str, row.values()))
  return made


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
  """Draw latency and throughput by batch size.

  Args:
    rows: result of `benchmark`.
    path: file to write: .svg, .png or .pdf.
  Raises: DeployError: the name has another ending.
  """
  if path.suffix not in (".svg", ".png", ".pdf"):
    raise DeployError(f"{path}: a plot is a file .svg, .png or .pdf")
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.6), layout="constrained")
  latency, throughput = figure.subplots(1, 2)
  for part in dict.fromkeys(row["part"] for row in rows):
    own = [row for row in rows if row["part"] == part]
    batch = [row["batch"] for row in own]
    latency.plot(batch, [row["p50_ms"] for row in own], marker="o", label=f"{part}, p50")
    latency.fill_between(batch, [row["p50_ms"] for row in own], [row["p99_ms"] for row in own], alpha=0.2)
    throughput.plot(batch, [row["per_second"] for row in own], marker="o", label=part)
  latency.set(xlabel="batch size", ylabel="ms (line: p50, area: up to p99)", xscale="log", yscale="log")
  throughput.set(xlabel="batch size", ylabel="examples per second", xscale="log", ylim=(0, None))
  latency.legend()
  throughput.legend()
  figure.savefig(path)

"""Size, latency and quality of a run's export in every dtype, beside the run."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from rich.table import Column, Table

from mmjax.deploy.formats import DTYPES
from mmjax.deploy.packing import pack, unpack
from mmjax.deploy.timing import benchmark
from mmjax.nn.dense import OtherKernel
from mmjax.nn.int8 import linear_kernels
from mmjax.parallel.mesh import replicated

if TYPE_CHECKING:
  from mmjax.run import Run


def compare(
  run: Run, to: str = "stablehlo", *, calls: int = 50, dtypes: Sequence[str] = DTYPES
) -> list[dict[str, Any]]:
  """Export a run in several dtypes and evaluate each.

  Args:
    run: the run. Its data must be there for the evaluation.
    to: format of the exports.
    calls: timed calls of each part, with batch size 1.
    dtypes: dtypes of the weights.
  Returns: one row for each dtype: dtype, bytes, p50_ms (median latency of each part), cosine (the least one to float32,
    over parts) and metrics (by title and name, those of the evaluators of the run, with the weights of this dtype).
  """
  from mmjax.deploy.loading import load
  from mmjax.deploy.writing import export

  rows = []
  for dtype in dtypes:
    if to == "onnx" and dtype == "bfloat16":
      continue  # ONNX Runtime has none
    with tempfile.TemporaryDirectory() as folder:
      manifest = load(export(run, to, Path(folder) / "export", dtype=dtype)).manifest
      timed = benchmark(Path(folder) / "export", (1,), calls=calls)
    rows.append(
      {
        "dtype": dtype,
        "bytes": weight_bytes(run, dtype),
        "folder_bytes": manifest["bytes"],
        "p50_ms": {row["part"]: row["p50_ms"] for row in timed},
        "cosine": min(part["checked"]["least_cosine_to_float32"] for part in manifest["parts"].values()),
        "metrics": metrics(run, dtype),
      }
    )
  return rows


def weight_bytes(run: Run, dtype: str) -> int:
  """Size of the weights in a dtype, scales included."""
  return sum(array.nbytes for array in _packed(run, dtype).values())


def metrics(run: Run, dtype: str) -> dict[str, float]:
  """Evaluate a run with the weights of a dtype.

  Args:
    run: the run. Its files stay as they are.
    dtype: dtype of the weights.
  Returns: metrics by "title, name".
  """
  from mmjax.evaluate import evaluate

  def placed(new: Any, old: Any) -> Any:
    if isinstance(new, OtherKernel):
      return jax.device_put(new, replicated(run.mesh))
    return jax.device_put(new.astype(old.dtype), getattr(old, "sharding", None))

  params = unpack(_packed(run, dtype))
  params = jax.tree.map(placed, params, run.params, is_leaf=lambda leaf: isinstance(leaf, OtherKernel))
  results = evaluate(dataclasses.replace(run, params=params))
  return {f"{one['title']}, {name}": value for one in results for name, value in one["metrics"].items()}


def _packed(run: Run, dtype: str) -> Any:
  return pack(jax.device_get(run.params), dtype, linear_kernels(run.model, run.experiment.model.example(1)))


def table(rows: Sequence[dict[str, Any]], shown: int = 4) -> Table:
  """Table of what `compare` returned.

  Args:
    rows: the rows.
    shown: number of metrics, the first ones. The difference to the first row stands beside each.
  """
  parts, names = list(rows[0]["p50_ms"]), list(rows[0]["metrics"])[:shown]
  made = Table(
    "dtype",
    "weights",
    "ratio",
    *(f"{part} ms" for part in parts),
    "cosine",
    *(Column(name, overflow="fold") for name in names),
  )
  for row in rows:
    scores = [f"{row['metrics'][name]:.4f} ({row['metrics'][name] - rows[0]['metrics'][name]:+.4f})" for name in names]
    size = f"{row['bytes'] / 1e6:.2f} MB", f"{rows[0]['bytes'] / row['bytes']:.2f}"
    made.add_row(
      row["dtype"], *size, *(f"{row['p50_ms'][part]:.2f}" for part in parts), f"{row['cosine']:.5f}", *scores
    )
  return made

"""Commands prune and quantize: a run or published weights in, a smaller run out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmjax.deploy.formats import DeployError

if TYPE_CHECKING:
  from rich.table import Table

  from mmjax.run import Run


def add_prune_options(parser: argparse.ArgumentParser) -> None:
  """Options of the command `prune`."""
  parser.add_argument("source", metavar="SOURCE", help="workdir of a run, or published weights (mmjax.interop.load)")
  parser.add_argument(
    "--heads", metavar="SHARE", type=float, default=0.0, help="of the attention heads to remove; default: 0"
  )
  parser.add_argument(
    "--units", metavar="SHARE", type=float, default=0.0, help="of the MLP units to remove; default: 0"
  )
  parser.add_argument(
    "--sparsity", metavar="SHARE", type=float, default=0.0, help="of the weights to set to zero; default: 0"
  )
  _add_training(parser)


def add_quantize_options(parser: argparse.ArgumentParser) -> None:
  """Options of the command `quantize`."""
  parser.add_argument("source", metavar="WORKDIR", help="workdir of a run")
  parser.add_argument("--weights-only", action="store_true", help="for --dtype int8; default: for int8-dynamic, too")
  _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="workdir of the new run")
  parser.add_argument("--steps", metavar="N", type=int, help="of fine-tuning; default: a quarter of the run's")
  parser.add_argument("--learning-rate", metavar="RATE", type=float, help="peak; default: half of the run's")


def prune(options: Any) -> int:
  """Run the command `prune`. Returns the exit status.

  Published weights are written without fine-tuning, in mmjax's own format: a run begins from them with
  --pretrained.path.

  Raises: DeployError: nothing is to be removed, or the options do not fit the source.
  """
  from mmjax.deploy.pruning import prune as without
  from mmjax.settings import CompressionConfig

  if not (options.heads or options.units or options.sparsity):
    raise DeployError("nothing to remove: set --heads, --units or --sparsity")
  if not _is_run(options.source):
    return _prune_published(options)
  run = _run(options.source)
  config, params = run.experiment.model, run.params
  if options.heads or options.units:
    config, params = without(config, params, heads=options.heads, units=options.units)
  try:
    compression = CompressionConfig(sparsity=options.sparsity)
  except ValueError as error:
    raise DeployError(str(error)) from None
  return _fine_tuned(options, run, config, params, compression)


def quantize(options: Any) -> int:
  """Run the command `quantize`. Returns the exit status."""
  from mmjax.settings import CompressionConfig

  if not _is_run(options.source):
    raise DeployError(f"{options.source} is not the workdir of a run, and training needs its data")
  run = _run(options.source)
  compression = CompressionConfig(quantize="weights" if options.weights_only else "all")
  return _fine_tuned(options, run, run.experiment.model, run.params, compression)


def _is_run(path: str) -> bool:
  from mmjax.run import CHECKPOINTS, CONFIG

  folder = Path(path).expanduser()
  return (folder / CONFIG).is_file() and (folder / CHECKPOINTS).is_dir()


def _run(path: str) -> Run:
  from mmjax.loading import load_run

  return load_run(path)


def _fine_tuned(options: Any, run: Run, config: Any, params: Any, compression: Any) -> int:
  """Train the smaller model, and show it beside the run."""
  from rich.console import Console

  from mmjax.deploy.retraining import continued, train_and_measure
  from mmjax.evaluate import evaluate
  from mmjax.parallel.host import tune_allocator, tune_compiler

  tune_allocator()
  tune_compiler()
  amount: Any = dict(steps=options.steps, learning_rate=options.learning_rate)
  experiment = continued(run, config, params, options.out, compression=compression, **amount)
  status, after = train_and_measure(experiment)
  if status:
    return status
  kept = run.workdir / "results.json"
  before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else evaluate(run)
  Console(width=160).print(compared({"before": (run, before), "after": (_run(str(options.out)), after)}))
  return 0


def _prune_published(options: Any) -> int:
  from rich.console import Console

  from mmjax.deploy.pruning import prune as without
  from mmjax.interop import load_pretrained
  from mmjax.interop.convert import save_like

  if options.sparsity or options.steps or options.learning_rate:
    raise DeployError(
      f"{options.source} is not the workdir of a run, and training needs data: remove --heads and --units only, and "
      "begin a run from what is written, with --pretrained.path"
    )
  found: Any = load_pretrained(options.source)
  config, params = without(found.model.config, found.params, heads=options.heads, units=options.units)
  save_like(found, config.build(), params, options.out.expanduser(), "mmjax")
  Console().print(f"written, not fine-tuned: {options.out}", highlight=False, soft_wrap=True)
  return 0


def compared(rows: dict[str, tuple[Run, Any]], shown: int = 4) -> Table:
  """Table of runs: parameters, bytes, latency and the first metrics.

  Args:
    rows: (run, its results) by title.
    shown: number of metrics.
  """
  from rich.table import Column, Table

  from mmjax.deploy.comparing import weight_bytes

  names = [f"{one['title']}, {name}" for one in next(iter(rows.values()))[1] for name in one["metrics"]][:shown]
  made = Table(
    "", "parameters", "not zero", "MB", "MB in int8", "ms", *(Column(name, overflow="fold") for name in names)
  )
  for title, (run, results) in rows.items():
    metrics = {f"{one['title']}, {name}": value for one in results for name, value in one["metrics"].items()}
    total, left = counts(run.params)
    sizes = (f"{weight_bytes(run, dtype) / 1e6:.2f}" for dtype in ("float32", "int8"))
    times = ", ".join(f"{part} {1e3 * seconds:.1f}" for part, seconds in latency(run).items())
    made.add_row(title, f"{total:,}", f"{left:,}", *sizes, times, *(f"{metrics[name]:.4f}" for name in names))
  return made


def counts(params: Any) -> tuple[int, int]:
  """Number of parameters, and of those that are not zero."""
  import jax
  import numpy as np

  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
  return sum(leaf.size for leaf in leaves), sum(int(np.count_nonzero(leaf)) for leaf in leaves)


def latency(run: Run, *, batch: int = 64, calls: int = 30) -> dict[str, float]:
  """Median time of each part of a model (see mmjax.deploy.parts), compiled by JAX, in seconds.

  Args:
    run: the run.
    batch: rows of a call.
    calls: number of timed calls.
  Returns: times by part. Empty for a model without such parts.
  """
  import time

  import jax
  import numpy as np

  from mmjax.deploy.parts import check_rows, parts_of

  found: dict[str, float] = {}
  try:
    parts = parts_of(run)
  except DeployError:
    return found
  for part in parts:
    rows = jax.device_put(check_rows(part, run, batch, seed=0))
    call = jax.jit(lambda params, rows, part=part: part(run.model, params, rows))
    jax.block_until_ready(call(run.params, rows))
    seconds = []
    for _ in range(calls):
      start = time.perf_counter()
      jax.block_until_ready(call(run.params, rows))
      seconds.append(time.perf_counter() - start)
    found[part.name] = float(np.median(seconds))
  return found

"""Checks before the first step, so that no run trains to its end and then cannot be evaluated."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

from mmjax.data.columns.base import check_record
from mmjax.data.errors import DataError
from mmjax.data.places import spread
from mmjax.data.sources.base import IMAGE_TEXT
from mmjax.evaluate.evaluator import Shared, applying

if TYPE_CHECKING:
  from mmjax.data.columns.base import Column
  from mmjax.data.config import DataConfig
  from mmjax.evaluate.examples import Examples
  from mmjax.run import Run

_FEW = 500  # images that are decoded without a progress bar
log = logging.getLogger(__name__)


def check_ready(run: Run) -> None:
  """Open and check what the evaluators of a run will need.

  Args:
    run: the run before its first step. Its parameters are shapes.
  Raises: DataError, UserError: something is missing or wrong; the message names it, the evaluator, and the remedy.
  """
  streams = run.by_stream().values()
  if not any(applying(each.experiment) for each in streams):
    log.warning(
      "None of the evaluators of this run (%s) applies to its data and objectives: nothing will be measured after "
      "training. --help lists the evaluators for --evaluation.evaluators.",
      ", ".join(run.experiment.evaluation.evaluators) or "there are none",
    )
  for each in streams:
    shared = Shared()
    for evaluator in applying(each.experiment):
      try:
        evaluator.check(each, shared)
      except DataError as error:
        names = [name for name, one in each.experiment.evaluation.evaluators.items() if one is evaluator]
        raise DataError(
          f"The evaluator {names[0]} would fail after the training: {error} To train without it, name the evaluators "
          "to keep: --evaluation.evaluators NAME=KIND ..."
        ) from error


def checked_examples(run: Run, shared: Shared) -> tuple[Examples, list[dict[str, np.ndarray]]]:
  """The examples that evaluators show, and their batches without images, after a look at every record and image.

  Images are decoded if the run is at its beginning, by each process its share.
  """
  from mmjax.evaluate.examples import batches, example_columns, shown_examples
  from mmjax.evaluate.traits import has_emoji

  def compute() -> tuple[Examples, list[dict[str, np.ndarray]]]:
    examples, data = shown_examples(run, shared), run.experiment.data
    if not has_emoji(data) and data.on_bad_record == "error" and run.step == 0:  # "skip" has decoded them already
      mine = examples.records[jax.process_index() :: jax.process_count()]
      decode_all(mine, example_columns(data, examples.features), data)
    arrays = lambda batch: {name: rows for name, rows in batch.items() if isinstance(rows, np.ndarray)}
    return examples, [arrays(batch) for batch in batches(run, examples)]

  return shared.once("checked", compute)


def training_sample(run: Run) -> tuple[Any, list[Any], list[int]]:
  """(the training split, at most evaluation.max_examples of its records evenly spread over it, their places).

  Their images are decoded as in `checked_examples` if the run is at its beginning.
  """
  from mmjax.data import make_source
  from mmjax.evaluate.examples import example_columns

  data = run.experiment.data
  source, columns = make_source(data, "train"), example_columns(data, IMAGE_TEXT)
  places = spread(len(source), run.experiment.evaluation.max_examples)
  records, places = readable(source.__getitem__, places, columns, data)
  if data.on_bad_record == "error" and run.step == 0:
    decode_all(records[jax.process_index() :: jax.process_count()], columns, data)
  return source, records, places


def readable(
  read: Callable[[int], Any], places: Iterable[int], columns: Mapping[str, Column], data: DataConfig
) -> tuple[list[Any], list[int]]:
  """Read the records at some places. With data.on_bad_record "skip", bad records and images are left out and logged.

  Args:
    read: function from a place to the record.
    places: the places.
    columns: columns of the run, which check the records.
    data: settings of the data.
  Returns: (records, their places).
  Raises: DataError: a record is bad, or no record is good.
  """
  good: list[tuple[Any, int]] = []
  for place in places:
    try:
      record = read(place)
      for name, column in columns.items():
        check_record(name, column, record)
      good.append((record, place))
    except DataError as error:
      if data.on_bad_record != "skip":
        raise
      log.warning("Skipped a record of the evaluation: %s", error)
  if data.on_bad_record == "skip":
    faults = decode_all([record for record, _ in good], columns, data)
    good = [entry for entry, fault in zip(good, faults, strict=True) if fault is None]
  if not good:
    raise DataError("No record of the evaluation is good: see the log.")
  return [record for record, _ in good], [place for _, place in good]


def decode_all(records: Sequence[Any], columns: Mapping[str, Column], data: DataConfig) -> list[DataError | None]:
  """Decode the files of records, in threads. Returns the fault of each, or None; these are raised or logged.

  Args:
    records: the records.
    columns: columns of the run, some of which decode files: images or sounds.
    data: settings of the data. With on_bad_record "error", the first fault is raised.
  """
  decoding = [column for column in columns.values() if column.decodes]
  if not decoding:
    return [None] * len(records)
  with ThreadPoolExecutor() as threads:
    found = threads.map(lambda record: _fault(record, decoding, data), records)
    few, size = len(records) < _FEW, len(records)
    faults = list(track(found, "checking files", size, transient=True, disable=few, console=Console(stderr=True)))
  for fault in filter(None, faults):
    if data.on_bad_record != "skip":
      raise fault
    log.warning("Skipped a record of the evaluation: %s", fault)
  return faults


def _fault(record: Mapping[str, Any], columns: Sequence[Column], data: DataConfig) -> DataError | None:
  try:
    for column in columns:
      column.decode(record, data)
  except DataError as error:
    return error
  return None

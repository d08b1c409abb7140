"""Records of another source with a weight each, from a file."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.data.columns.answer import Weight
from mmjax.data.columns.base import Column
from mmjax.data.errors import DataError
from mmjax.data.fingerprint import digest, order_identity
from mmjax.data.records import Records
from mmjax.data.sources.base import Reading, Source
from mmjax.data.sources.class_folders import ClassFolders


@dataclasses.dataclass(frozen=True)
class Weighted(Source):
  """Records of another source, with the field `weight`. A loss term reads it with example_weights="weight".

  The weights are those of the split "train". Records of other splits have the weight 1.
  """

  of: Source = ClassFolders()
  """The source of the records."""
  path: str | None = None
  """File of the weights: .npy, one number of at least 0 for each training record, in the order of the records."""

  @property
  def columns(self) -> Mapping[str, Column]:
    return {**self.of.columns, "weight": Weight(field="weight")}

  @property
  def title(self) -> str:
    return self.of.title

  @property
  def languages(self) -> tuple[str, ...]:
    return self.of.languages

  @property
  def has_group(self) -> bool:
    return self.of.has_group

  def open(self, split: str, reading: Reading) -> "WeightedRecords":
    records = self.of.open(split, reading)
    if split != "train":
      return WeightedRecords(records, np.ones(len(records)))
    if self.path is None:
      raise DataError("--data.source weighted needs --data.source.path FILE: a .npy file with a weight per record.")
    return WeightedRecords(records, _read(Path(self.path).expanduser(), len(records)))


class WeightedRecords:
  """Records with weights.

  Args:
    source: the records.
    weights: the weight of each record.
  """

  def __init__(self, source: Records, weights: Float[np.ndarray, " n"]):
    self._source, self._weights = source, weights

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    return {**self._source[index], "weight": float(self._weights[index])}

  @functools.cached_property
  def sample(self) -> int:
    """Number that changes with the weights, and with a sample of the source."""
    return digest([self._weights.tobytes().hex(), *map(repr, sorted(order_identity(self._source).items()))])

  @property
  def features(self) -> tuple[str, ...]:
    """Names of the entries of a batch that the records fill."""
    return (*getattr(self._source, "features", ("image", "text")), "weight")

  def __getattr__(self, name: str) -> Any:
    """Whatever else the source can: siblings, its fingerprint, records without images."""
    if name.startswith("_"):  # also while unpickling, when there is no source yet
      raise AttributeError(name)
    return getattr(self._source, name)


def _read(path: Path, records: int) -> Float[np.ndarray, " n"]:
  try:
    weights = np.load(path, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise DataError(f"Cannot read the weights in {path}: {error}. Write them with numpy.save.") from error
  if not isinstance(weights, np.ndarray) or weights.dtype.kind not in "fiu" or weights.shape != (records,):
    shape = getattr(weights, "shape", None)
    raise DataError(f"{path} has {shape} weights, and the source has {records} training records: give one for each.")
  wrong = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
  if len(wrong):
    raise DataError(f"{path}: the weight of record {wrong[0]} is {weights[wrong[0]]}, not a number of at least 0.")
  return weights.astype(np.float64)

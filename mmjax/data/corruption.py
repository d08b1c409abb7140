"""Images with the captions of others: noise whose truth is known, for what is claimed about noisy captions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from mmjax.data.errors import DataError
from mmjax.data.features import IMAGE_TEXT, source_features
from mmjax.data.records import Record, Records

_KEY = 20_220_128  # of the permutation: the noise belongs to the data, not to a run's seed


class CorruptedRecords:
  """Another source, where exactly `round(share * len)` records have all captions of a record of another concept.

  Which ones depends on the number of records and the share alone; those of a smaller share are among those of a
  larger one, with the same wrong captions. Everything else of a record stays, also its concept.

  Args:
    source: images with captions.
    share: 0 to 1.

  Raises:
    DataError: the share is not between 0 and 1, or the records have no captions.

  Attributes:
    corrupted: True where a record has the captions of another.
  """

  def __init__(self, source: Records, share: float):
    if not 0 <= share <= 1:
      raise DataError(f"--data.corrupt-captions {share} is not a share: give 0 to 1.")
    if source_features(source) != IMAGE_TEXT:
      raise DataError(
        f"--data.corrupt-captions needs captions; this source gives {', '.join(source_features(source))}."
      )
    self._source = source
    draws = np.random.Generator(np.random.Philox(key=_KEY)).random(len(source))
    self._order = np.argsort(draws, kind="stable")
    self._place = np.empty(len(source), np.int64)
    self._place[self._order] = np.arange(len(source))
    self.corrupted: Bool[np.ndarray, "n"] = self._place < round(share * len(source))

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Record:
    record = self._source[index]
    if not self.corrupted[index]:
      return record
    wrong: Record = {**record, "captions": self._donor(index, record)["captions"]}
    return wrong

  def captions(self, index: int) -> Mapping[str, Sequence[str]]:
    """The right captions, which a tokenizer is trained on: the same for any share."""
    read = getattr(self._source, "captions", None)
    return self._source[index]["captions"] if read is None else read(index)

  def _donor(self, index: int, record: Record) -> Record:
    """The next record in the order that means something else."""
    for step in range(1, len(self)):
      other = self._source[int(self._order[(self._place[index] + step) % len(self)])]
      if other["concept"] != record["concept"]:
        return other
    raise DataError(
      f"{record['id']}: every record means the same, so no caption is wrong. Use --data.corrupt-captions 0."
    )

  def __getattr__(self, name: str) -> Any:
    """Whatever else the source can: siblings, features, its order."""
    if name.startswith("_"):  # also while unpickling, when there is no source yet
      raise AttributeError(name)
    return getattr(self._source, name)

"""Fingerprints of the records and their order, so that a run is not resumed in the middle of another order."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmjax.data.errors import DataError
from mmjax.data.records import Records, text_reader

SAMPLED = 1000
"""Most records that `sample` reads."""
_FIELDS = ("concept", "captions", "question", "answer", "first", "second")
log = logging.getLogger(__name__)


def digest(names: Iterable[str]) -> int:
  """Number below 2^48 that changes with the names and their order."""
  found = hashlib.blake2b(digest_size=6)
  for name in names:
    found.update(name.encode(errors="surrogatepass") + b"\0")
  return int.from_bytes(found.digest(), "big")


def of_records(records: Iterable[Mapping[str, Any]]) -> int:
  """Fingerprint of records in memory, by id and concept."""
  return digest(f"{record['id']} {record['concept']}" for record in records)


def sample(source: Records) -> int:
  """Fingerprint of up to SAMPLED records, evenly spread, for sources that do not hold the names of all.

  Their texts and concepts count, and the last part of an id, so that the data may be moved to another folder. Images
  are not read where the source can do without.
  """
  read, size = text_reader(source), len(source)
  places = np.unique(np.linspace(0, size - 1, min(SAMPLED, size)).round().astype(np.int64))
  return digest(_described(read, place) for place in places.tolist())


def _described(read: Any, place: int) -> str:
  try:
    record = read(place)
  except DataError:  # an error when it is its turn, or skipped
    return "bad"
  name = str(record.get("id", "")).rpartition("/")[2]
  return repr([name, *(record.get(field) for field in _FIELDS)])


def order_identity(source: Any) -> dict[str, int]:
  """Fingerprints of a source by name: "fingerprint" of all its records, "sample" of some of them, or both.

  A source that has neither attribute is sampled.
  """
  known = {name: getattr(source, name, None) for name in ("fingerprint", "sample")}
  found = {name: int(value) for name, value in known.items() if value is not None}
  return found or {"sample": sample(source)}


def check_identity(identity: Mapping[str, int], state: Mapping[str, Any]) -> None:
  """Check that a saved position is one of these data.

  Args:
    identity: numbers of the run, such as num_records and the fingerprints of `order_identity`.
    state: numbers of the checkpoint. Fingerprints may be missing there: older versions saved none.
  Raises: DataError: a number differs.
  """
  for name, value in identity.items():
    if name in ("fingerprint", "sample"):
      _check_order(name, value, state)
    elif state.get(name) != value:
      raise DataError(
        f"The saved data position is for {name} = {state.get(name)}, this run has {value}. "
        "Resume with the same data, seed and batch size, or start in a new --run.workdir."
      )


def _check_order(name: str, value: int, state: Mapping[str, Any]) -> None:
  if name not in state:
    log.warning("The checkpoint has no %s of the data, as it is of an older version: the order is not checked.", name)
  elif state[name] != value:
    raise DataError(
      f"The data are as many records as those of the checkpoint, but others or in another order (the {name} was "
      f"{state[name]} and is {value}): rows were sorted or replaced, or a setting of --data.source differs. Restore "
      "the data of the run, or start in a new --run.workdir."
    )

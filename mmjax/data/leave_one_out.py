"""Interactions of users with items, ordered by time, with the last one of each user held out."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from mmjax.data.errors import DataError
from mmjax.data.fingerprint import digest, sample
from mmjax.data.records import Records

SPLITS = ("train", "validation")
OTHER = "2"
"""End of the names of the fields of the item that is drawn at random beside an interaction."""
RESERVED = ("id", "concept", "user", "item", "history", "time")
"""Fields that a record has by itself, and that no field of a user or an item may be called."""


@dataclasses.dataclass(frozen=True)
class Entities:
  """Users or items.

  Attributes:
    names: their names. Those in the interactions come first.
    fields: their fields, in the same order: a list, or records with a method `without_image`.
  """

  names: Sequence[str]
  fields: Records

  def __getitem__(self, place: int) -> Mapping[str, Any]:
    return self.fields[place]

  @functools.cached_property
  def without_image(self) -> Callable[[int], Mapping[str, Any]]:
    """Function from a place to the fields, without reading an image."""
    return getattr(self.fields, "without_image", self.fields.__getitem__)


class Interactions:
  """Interactions in the order of users, and for each user of time. Equal times stay in the order of the file.

  Args:
    origin: the file, for errors and names of records.
    events: (place of the user, place of the item, time) of each interaction.
    users, items: the users and the items.
    history: largest number of earlier items in a record.
    drop_last: number of interactions at the end of each user that are left out before the last one is held out.
    cold: share of the items that are not trained on.
    other: True if a record also has the fields of an item that is drawn at random.
    num_skipped: number of bad rows of the file that were left out.
  Raises: DataError: there is no interaction, or the names of two fields are equal.
  """

  def __init__(
    self,
    origin: str,
    events: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], np.ndarray],
    users: Entities,
    items: Entities,
    *,
    history: int,
    drop_last: int = 0,
    cold: float = 0.0,
    other: bool = False,
    num_skipped: int = 0,
  ):
    if not len(events[0]):
      raise DataError(f"{origin} has no interactions. Add rows.")
    user, item, time = events
    order = np.lexsort((np.arange(len(user)), time, user))
    user, item, time = user[order], item[order], time[order]
    if drop_last:
      left = np.searchsorted(user, user, side="right") - np.arange(len(user))
      user, item, time = (each[left > drop_last] for each in (user, item, time))
    self.origin, self.users, self.items, self.num_skipped = origin, users, items, num_skipped
    self.user, self.item, self.time = user, item, time
    self.first = np.searchsorted(user, user)
    self.history, self.other = history, other
    self.cold = np.array([_share("cold", name) < cold for name in items.names])
    self._check_fields()

  @functools.cached_property
  def last(self) -> Bool[np.ndarray, " n"]:
    """True for the last interaction of each user who has two or more."""
    ends = np.append(self.user[1:] != self.user[:-1], True)
    return ends & (self.first < np.arange(len(self.user)))

  @functools.cached_property
  def trained(self) -> Bool[np.ndarray, " n"]:
    """True for the interactions of the training split."""
    return ~self.last & ~self.cold[self.item]

  @functools.cached_property
  def counts(self) -> Int[np.ndarray, " items"]:
    """Number of training interactions of each item."""
    return np.bincount(self.item[self.trained], minlength=len(self.items.names))

  @functools.cached_property
  def latest(self) -> Bool[np.ndarray, " n"]:
    """True for the interactions that the history of the held-out one has."""
    end = np.searchsorted(self.user, self.user, side="right") - 1
    return ~self.last & (end - np.arange(len(self.user)) <= self.history)

  def matrix(self, chosen: Bool[np.ndarray, " n"]) -> Any:
    """Sparse matrix [users, items] in float32: 1 for the pairs of some interactions. Repetitions count once."""
    from scipy.sparse import csr_array  # here, so that training does not wait for it

    shape = (len(self.users.names), len(self.items.names))
    found = csr_array((np.ones(int(chosen.sum()), np.float32), (self.user[chosen], self.item[chosen])), shape=shape)
    found.sum_duplicates()
    found.data[:] = 1.0
    return found

  def split(self, name: str) -> "InteractionRecords":
    """Records of a split: "train", or "validation" (the last interaction of each user who has two or more).

    Raises: DataError: the split is empty.
    """
    places = np.flatnonzero(self.trained if name == "train" else self.last)
    if not len(places):
      raise DataError(
        f"{self.origin}: no interaction is in the split {name!r}. Each user's last one of two or more is held out, and "
        "cold items are not trained on: add interactions, or lower drop_last or cold."
      )
    return InteractionRecords(self, places)

  def catalogue(self) -> "ItemRecords":
    """One record for each item."""
    return ItemRecords(self)

  @functools.cached_property
  def place_of_user(self) -> dict[str, int]:
    """The place of each user, by the name."""
    return {name: place for place, name in enumerate(self.users.names)}

  def earlier(self, place: int) -> list[str]:
    """Items of the user before an interaction, the latest first, at most `history`."""
    start, names = max(int(self.first[place]), place - self.history), self.items.names
    return [names[code] for code in self.item[start:place][::-1].tolist()]

  @functools.cached_property
  def drawn(self) -> Int[np.ndarray, " n"]:
    """Place of the item that is drawn beside each interaction: uniform over all items, and always the same one."""
    return np.random.default_rng(0).integers(0, len(self.items.names), len(self.user), np.int32)

  def _check_fields(self) -> None:
    user, item = (set(table.without_image(0)) if table.names else set() for table in (self.users, self.items))
    for name in sorted(user | item):
      if name in RESERVED or (name in user and name in item):
        fault = "is the source's own" if name in RESERVED else "is one of users and one of items"
        raise DataError(f"{self.origin}: the field {name!r} {fault}. Rename it in the table.")


class InteractionRecords:
  """Interactions as records: `user`, `item`, `history` (names of earlier items, the latest first), `time`, and the
  fields of the user and the item. `concept` is the place of the item in the catalogue.

  Args:
    log: all interactions.
    places: places of those of this split.

  Attributes:
    log: all interactions.
    places: places of those of this split.
    num_skipped: number of bad rows of the file that were left out.
  """

  def __init__(self, log: Interactions, places: Int[np.ndarray, " n"]):
    self.log, self.places, self.num_skipped = log, places, log.num_skipped

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, index: int) -> dict[str, Any]:
    log = self.log
    return self._record(index, log.users.fields.__getitem__, log.items.fields.__getitem__)

  def without_image(self, index: int) -> dict[str, Any]:
    """The record, without reading an image."""
    log = self.log
    return self._record(index, log.users.without_image, log.items.without_image)

  @functools.cached_property
  def fingerprint(self) -> int:
    """Number that changes with the interactions and their order."""
    return digest(f"{self.log.user[place]} {self.log.item[place]}" for place in self.places.tolist())

  @functools.cached_property
  def sample(self) -> int:
    """Number that changes with the names and texts of a sample of the interactions."""
    return sample(self)

  def _record(self, index: int, of_user: Any, of_item: Any) -> dict[str, Any]:
    log, place = self.log, int(self.places[index])
    user, item = int(log.user[place]), int(log.item[place])
    record = {
      **of_user(user),
      **of_item(item),
      "id": f"{log.origin}: user {log.users.names[user]}, item {log.items.names[item]}",
      "concept": item,
      "user": log.users.names[user],
      "item": log.items.names[item],
      "history": log.earlier(place),
      "time": float(log.time[place]),
    }
    if log.other:
      drawn = int(log.drawn[place])
      fields = {**of_item(drawn), "item": log.items.names[drawn], "concept": drawn}
      for name, value in fields.items():
        record[name + OTHER] = value
    return record


class ItemRecords:
  """The items as records: `item`, and the fields of the item."""

  def __init__(self, log: Interactions):
    self._log = log

  def __len__(self) -> int:
    return len(self._log.items.names)

  def __getitem__(self, index: int) -> dict[str, Any]:
    name = self._log.items.names[index]
    fields = {"id": f"{self._log.origin}: item {name}", "concept": index, "item": name}
    return {**self._log.items[index], **fields}


def numbered(names: Sequence[str]) -> tuple[list[str], Int[np.ndarray, " n"]]:
  """Sort the different names. Returns them, and the place of each of `names` among them."""
  found, places = np.unique(np.array(names, dtype=object), return_inverse=True)
  return found.tolist(), places.astype(np.int32)


def aligned(names: Sequence[str], keys: Iterator[str], fields: Records, origin: str) -> Entities:
  """Put the rows of a table into the order of names. Names that are in the table alone come last.

  Args:
    names: names of users or items in the interactions.
    keys: the name of each row.
    fields: the rows. They may have a method `without_image`.
    origin: the file of the table, for errors.
  Raises: DataError: a name has no row, or two.
  """
  places: dict[str, int] = {}
  for place, key in enumerate(keys):
    if key in places:
      raise DataError(f"{origin}, row {place + 1}: {key!r} is also in row {places[key] + 1}. Remove one of them.")
    places[key] = place
  for name in names:
    if name not in places:
      raise DataError(f"{origin} has no row for {name!r}, which the interactions name. Add it.")
  known = set(names)
  order = [*names, *(key for key in places if key not in known)]
  chosen = [places[name] for name in order]
  return Entities(order, [fields[place] for place in chosen] if isinstance(fields, list) else _Picked(fields, chosen))


@dataclasses.dataclass(frozen=True)
class _Picked:
  """Rows at some places."""

  rows: Records
  places: Sequence[int]

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, index: Any) -> Any:
    return self.rows[self.places[index]]

  def without_image(self, index: int) -> Any:
    read = getattr(self.rows, "without_image", self.rows.__getitem__)
    return read(self.places[index])


def _share(*names: str) -> float:
  """Number in [0, 1) that is always the same for the same names."""
  return _hash(*names) / 2**64


def _hash(*names: str) -> int:
  return int.from_bytes(hashlib.blake2b("\0".join(names).encode(errors="replace"), digest_size=8).digest(), "big")

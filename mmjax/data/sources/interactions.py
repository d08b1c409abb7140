"""Sources of interactions of users with items: their base, and a file with user, item and time."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.annotations import Complaints
from mmjax.data.columns.base import Column
from mmjax.data.columns.ids import Ids
from mmjax.data.columns.table import MISSING, Present, is_missing, number_of
from mmjax.data.errors import DataError, unknown
from mmjax.data.leave_one_out import OTHER, SPLITS, Entities, InteractionRecords, Interactions, aligned, numbered
from mmjax.data.sources.base import Reading, Source
from mmjax.data.sources.table_file import TableFile
from mmjax.data.table_rows import TableRows, read_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class InteractionSource(Source):
  """Base of sources of interactions. The last interaction of each user, by time, is held out for validation."""

  history: int = 20
  """Number of the user's latest earlier items in a record."""
  other: bool = False
  """Add an item that is drawn uniformly, with all fields of the item under names that end in 2 (mixed negatives)."""
  cold: float = 0.0
  """Share of the items, by a hash of their names, whose interactions are left out of the training."""
  drop_last: int = 0
  """Leave out this many interactions at the end of each user, so that settings can be chosen on earlier ones."""

  def __post_init__(self) -> None:
    if self.history < 1 or self.drop_last < 0:
      raise ValueError(f"history={self.history} must be at least 1 and drop_last={self.drop_last} at least 0")
    if not 0 <= self.cold < 1:
      raise ValueError(f"cold={self.cold} must lie in [0, 1)")

  @property
  def columns(self) -> dict[str, Column]:
    """The columns of `fields`; with `other`, also one of the drawn item for each column of ids of the item."""
    columns = self.fields
    drawn = {
      name + OTHER: dataclasses.replace(column, field=column.field + OTHER, names=column.names or column.field)
      for name, column in columns.items()
      if self.other and isinstance(column, Ids) and column.field != "history"
    }
    return columns | drawn

  @property
  def fields(self) -> dict[str, Column]:
    """The columns of the user and the item."""
    return {"history": Ids("history", names="item", length=self.history), "item": Ids("item")}

  def open(self, split: str, reading: Reading) -> InteractionRecords:
    if split not in SPLITS:
      raise unknown("split of interactions", split, SPLITS)
    return self.interactions(reading).split(split)

  def interactions(self, reading: Reading) -> Interactions:
    """Read all interactions. Raises DataError, which names the file and the row."""
    raise NotImplementedError

  def _arranged(
    self, origin: str, events: Any, users: Entities, items: Entities, *, num_skipped: int = 0
  ) -> Interactions:
    settings: Any = dict(history=self.history, drop_last=self.drop_last, cold=self.cold, other=self.other)
    return Interactions(origin, events, users, items, num_skipped=num_skipped, **settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InteractionFile(InteractionSource):
  """A CSV, TSV or Parquet file with a user, an item and a time in each row, and tables of users and items, or none.

  The tables are files like those of TableFile, with one row for each user or item. The fields of both are fields of
  each record, so that the columns Table, Text and Ids read them by their names; Image and Caption read what
  `items.image` and `items.text` name. Items that are in their table alone can be recommended.

  Splits: "train", and "validation": the last interaction of each user who has two or more.
  """

  path: str | None = None
  """The file: .csv, .tsv or .parquet."""
  user: str = "user"
  """Column with the user, in the file and in the table of users."""
  item: str = "item"
  """Column with the item, in the file and in the table of items."""
  time: str = "time"
  """Column with the time, a number. Equal times stay in the order of the file."""
  users: TableFile = TableFile()
  """Table of the users. Without `path`: none."""
  items: TableFile = TableFile()
  """Table of the items, with images and texts. Without `path`: none."""

  @property
  def fields(self) -> dict[str, Column]:
    shown = {name: column for name, column in self.items.columns.items() if not isinstance(column, Present)}
    return {**super().fields, **shown}

  @property
  def title(self) -> str:
    return self.path or super().title

  def interactions(self, reading: Reading) -> Interactions:
    if self.path is None:
      raise DataError(
        "--data.source interaction_file needs --data.source.path FILE: a .csv, .tsv or .parquet file of user, item, "
        "time."
      )
    file = Path(self.path).expanduser()
    complaints = Complaints(reading)
    table = read_table(file, complaints)
    for option in ("user", "item", "time"):
      if getattr(self, option) not in table.names:
        raise DataError(
          f"{file}: there is no column {getattr(self, option)!r}, only {', '.join(map(repr, table.names))}. Check "
          f"--data.source.{option}."
        )
    events = list(self._events(table, complaints))
    user_names, user = numbered([event[0] for event in events])
    item_names, item = numbered([event[1] for event in events])
    times = [event[2] for event in events]
    users = self._table("users", self.user, user_names, reading)
    items = self._table("items", self.item, item_names, reading)
    return self._arranged(
      str(file), (user, item, np.array(times, np.float64)), users, items, num_skipped=complaints.number
    )

  def _events(self, table: TableRows, complaints: Complaints) -> Iterator[tuple[str, str, float]]:
    """(user, item, time) of the good rows."""
    seen = set[tuple[str, str, float]]()
    for place, row in enumerate(table.rows):
      at = table.where(place)
      try:
        event = _name(row, self.user, at), _name(row, self.item, at), _time({**row, "id": at}, self.time)
      except DataError as error:
        complaints.add(str(error))
        continue
      if event in seen:
        complaints.add(f"{at}: the same user, item and time are in an earlier row. Remove one of them.")
        continue
      seen.add(event)
      yield event

  def _table(self, option: str, key: str, names: Sequence[str], reading: Reading) -> Entities:
    source: TableFile = getattr(self, option)
    if source.path is None:
      return Entities(names, [{}] * len(names))
    rows = source.open("all", reading)
    fields, keys = _TableFields(rows, key), []
    for place in range(len(rows)):
      row = rows.without_image(place)
      if key not in row:
        raise DataError(f"{row['id']}: there is no column {key!r}. Check --data.source.{option[:-1]}.")
      keys.append(_name(row, key, row["id"]))
    return aligned(names, iter(keys), fields, source.path)


@dataclasses.dataclass(frozen=True)
class _TableFields:
  """Rows of a table without the fields that a record of interactions has by itself."""

  rows: Any
  key: str

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, place: int) -> Mapping[str, Any]:
    return self._without_key(self.rows[place])

  def without_image(self, place: int) -> Mapping[str, Any]:
    return self._without_key(self.rows.without_image(place))

  def _without_key(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in row.items() if name not in (self.key, "id", "concept", "missing")}


def _name(row: Mapping[str, Any], field: str, at: str) -> str:
  value = row[field]
  if is_missing(value, MISSING) or not isinstance(value, str | int | np.integer) or isinstance(value, bool):
    raise DataError(f"{at}: the field {field!r} is {value!r:.60}, not a name. Write a text or a whole number.")
  return str(value).strip()


def _time(row: Mapping[str, Any], field: str) -> float:
  value = row[field]
  stamp = getattr(value, "timestamp", None)  # of Parquet
  number = number_of(row if stamp is None else {**row, field: stamp()}, field, MISSING)
  if number is None:
    raise DataError(f"{row['id']}: the field {field!r}, by which interactions are ordered, is empty. Fill it.")
  exact = int(value) if isinstance(value, int) or (isinstance(value, str) and value.strip().isdecimal()) else number
  if exact != number:
    raise DataError(
      f"{row['id']}: the field {field!r} is {value!r:.60}, too large to be told from the next number. Write the time "
      "in microseconds or seconds."
    )
  return number

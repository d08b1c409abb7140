"""A table in one file: CSV, TSV or Parquet, with a name of an image file and a text in each row, or without."""

import dataclasses
import functools
import hashlib
import io
import unicodedata
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.annotations import Complaints
from mmjax.data.captions import read_captions
from mmjax.data.columns.base import Column
from mmjax.data.columns.image import Image
from mmjax.data.columns.table import MISSING, Present, is_missing
from mmjax.data.columns.text import Caption
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import digest
from mmjax.data.image_names import find_image
from mmjax.data.images.files import read_image_file
from mmjax.data.records import PRIMARY, captions_concept, concept_number
from mmjax.data.sources.base import Reading, Source
from mmjax.data.split_names import find_column, split_of
from mmjax.data.table_rows import Row, TableRows, read_table

SPLITS = ("train", "validation", "all")
NO_TEXT = "missing"
"""Caption of a row without a text. The field `missing` says that it is none."""


@dataclasses.dataclass(frozen=True)
class TableFile(Source):
  """A CSV, TSV or Parquet file with one record per row. The columns of the file are the fields of the records.

  The text columns of data.columns read what `text` names, and image columns the file that `image` names; the columns
  Table, Number and ClassLabel read the other fields by their names.

  Splits: "train", "validation", "all". A column `split` (in any case of letters) with train and validation, val, dev,
  test and the like decides. Without it, a hash of the row (of its `group`, if that is set) keeps `validation_share`
  for validation. The rows of one image are on one side.
  """

  path: str | None = None
  """The file: .csv, .tsv or .parquet. CSV and TSV begin with the names of the columns, in UTF-8."""
  image: str = ""
  """Column with the image file, relative to the folder of the table. An empty cell: the record has no image (its field
  `missing` says so). "": no images."""
  text: str = ""
  """Column with the text. An empty cell: the record has no text (its field `missing` says so). "": no texts."""
  split: str = "split"
  """Column with the split, if the file has it."""
  group: str = ""
  """Column by which rows stay together: those with the same value are all for training or all for validation. "":
  the image."""
  validation_share: float = 0.2
  """Share of the rows (of the groups) for validation, if the file has no column `split`."""

  def __post_init__(self) -> None:
    if not 0 <= self.validation_share < 1:
      raise ValueError(f"validation_share={self.validation_share} must lie in [0, 1)")

  @property
  def columns(self) -> dict[str, Column]:
    image: dict[str, Column] = {"image": Image()} if self.image else {}
    text: dict[str, Column] = {"text": Caption()} if self.text else {}
    found = image | text
    return found | ({"present": Present(tuple(found))} if found else {})

  @property
  def title(self) -> str:
    return self.path or super().title

  def open(self, split: str, reading: Reading) -> "TableRecords":
    if self.path is None:
      raise DataError("--data.source table_file needs --data.source.path FILE: a .csv, .tsv or .parquet file.")
    if split not in SPLITS:
      raise unknown("split of a table", split, SPLITS)
    file = Path(self.path).expanduser()
    complaints = Complaints(reading)
    table = read_table(file, complaints, self.image)
    for option in ("image", "text", "group"):
      wanted = getattr(self, option)
      if wanted and wanted not in table.names:
        raise DataError(
          f"{file}: there is no column {wanted!r}, only {', '.join(map(repr, table.names))}. Check "
          f"--data.source.{option}."
        )
    sides = self._sides(table, split, complaints)
    chosen = [place for place, side in enumerate(sides) if side and split in ("all", side)]
    if not chosen:
      raise DataError(
        f"{file}: none of the {len(table.rows)} rows is in the split {split!r}. Add rows, or a column {self.split!r}."
      )
    return TableRecords(self, table, chosen, reading, complaints.number)

  def _sides(self, table: TableRows, split: str, complaints: Complaints) -> Sequence[str]:
    """Split of each row; "" for one that is left out. Images are looked for only if `split` is not "all"."""
    column = find_column(table.names, self.split, str(table.file))
    if column is None:
      if self.split != TableFile.split:
        raise DataError(
          f"{table.file}: there is no column {self.split!r}, only {', '.join(table.names)}. Check --data.source.split."
        )
      if split == "all":
        return ["all"] * len(table.rows)
      return [self._hashed(key) for key in self._keys(table.file, table.rows)]
    sides = [split_of(str(row[column])) or "" for row in table.rows]
    for place, side in enumerate(sides):
      if not side:
        value = table.rows[place][column]
        complaints.add(f"{table.where(place)}: the field {column!r} is {value!r:.60}. Write train or validation.")
    return sides

  def _keys(self, file: Path, rows: Sequence[Row]) -> list[str]:
    """Text of each row whose hash decides the split: its group, or all of its fields.

    The rows of one image have one key, that of one of them. An image is a file, under whatever names.
    """
    if self.group:
      return [unicodedata.normalize("NFC", str(row[self.group]).strip()) for row in rows]
    keys = [_content(row) for row in rows]
    if not self.image:
      return keys
    images = [_image_of(file, row[self.image]) for row in rows]
    first: dict[Hashable, str] = {}
    for image, key in zip(images, keys, strict=True):
      first[image] = min(key, first.get(image, key))
    return [key if image is None else first[image] for image, key in zip(images, keys, strict=True)]

  def _hashed(self, key: str) -> str:
    share = int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:8], "big") / 2**64
    return "validation" if share < self.validation_share else "train"


class TableRecords:
  """The rows of one split, in the order of the file. Images are read when a record is.

  Args:
    source: settings of the source.
    table: all rows.
    chosen: places of the rows of the split.
    reading: settings that all sources share.
    num_skipped: rows that were left out, with on_bad_record "skip".
  """

  def __init__(self, source: TableFile, table: TableRows, chosen: Sequence[int], reading: Reading, num_skipped: int):
    self._source, self._table, self._rows, self._chosen = source, table, table.rows, chosen
    self._max_bytes, self.num_skipped = reading.max_bytes, num_skipped

  def __len__(self) -> int:
    return len(self._chosen)

  @functools.cached_property
  def fingerprint(self) -> int:
    """Number that changes with the rows and their order."""
    return digest(repr(sorted(self._rows[place].items(), key=lambda item: item[0])) for place in self._chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    record = self.without_image(index)
    if self._source.image:
      record["image"] = self._image(self._chosen[index])
    return record

  def without_image(self, index: int) -> dict[str, Any]:
    """The record, without reading its image."""
    place, source = self._chosen[index], self._source
    row, at = self._rows[place], self._table.where(place)
    lacks = tuple(
      name for name in ("image", "text") if getattr(source, name) and is_missing(row[getattr(source, name)], MISSING)
    )
    record = {**row, "id": at, "concept": self._concept(row, lacks), "missing": lacks}
    if source.text:
      given = NO_TEXT if "text" in lacks else row[source.text]
      record["captions"] = {PRIMARY: read_captions(given, f"{at}: the field {source.text!r}", typed=self._table.typed)}
    return record

  def _concept(self, row: Row, lacks: Sequence[str]) -> int:
    """Concept of a row: that of its text, or else of its image file, or else of all of its fields."""
    source = self._source
    if source.text and "text" not in lacks:
      return captions_concept([str(row[source.text])])
    return concept_number(str(row[source.image]) if source.image and "image" not in lacks else _content(row))

  def _image(self, place: int) -> bytes:
    name, at = self._rows[place][self._source.image], self._table.where(place)
    if is_missing(name, MISSING):
      return grey_image()
    found = find_image(self._table.file.parent, name, f"{at}: the field {self._source.image!r}")
    return read_image_file(Path(found.path), self._max_bytes, otherwise="empty the cell")


def _image_of(file: Path, name: Any) -> Hashable:
  """Identity of the image that a cell names. None: it names none. One that is not there is an error when it is read."""
  if is_missing(name, MISSING):
    return None
  try:
    return find_image(file.parent, name, "").identity
  except DataError:
    return str(name)


def _content(row: Row) -> str:
  return "\0".join(f"{name}\0{row[name]}" for name in sorted(row))


@functools.cache
def grey_image() -> bytes:
  """The placeholder of a missing image, as a PNG."""
  from PIL import Image as Pixels

  buffer = io.BytesIO()
  Pixels.new("RGB", (8, 8), (128, 128, 128)).save(buffer, "PNG")
  return buffer.getvalue()

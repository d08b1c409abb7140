"""Captions from a file in place of a source's own: the data step of BLIP's CapFilt (Li et al. 2022, section 3.3)."""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.captions import json_object, read_captions
from mmjax.data.errors import DataError
from mmjax.data.features import IMAGE_TEXT, source_features
from mmjax.data.fingerprint import digest, sample
from mmjax.data.records import PRIMARY, Record, Records, captions_concept, siblings
from mmjax.files import write_atomically

Captions = Mapping[str, Sequence[str]]


class RecaptionedRecords:
  """The records that a file written by `write_captions` lists, in its order, with the captions it gives them.

  Args:
    source: what the file was written for.
    path: the file.

  Raises:
    DataError: naming the file and the line; or (when a record is read) the file is of other data.
  """

  def __init__(self, source: Records, path: str | Path):
    if source_features(source) != IMAGE_TEXT:
      raise DataError(f"--data.captions-from needs captions; this source gives {', '.join(source_features(source))}.")
    self._source, self._path = source, Path(path).expanduser()
    rows = _rows(self._path, len(source))
    self._indices = [index for index, _, _ in rows]
    self._ids = [name for _, name, _ in rows]
    self._captions: list[Captions] = [captions for _, _, captions in rows]
    self._places = {index: place for place, index in enumerate(self._indices)}
    if not rows:
      raise DataError(
        f"{self._path} lists no record, so nothing is left to train on. Write it again, or leave out "
        "--data.captions-from."
      )

  def __len__(self) -> int:
    return len(self._indices)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the file's records and their order."""
    return digest(f"{index} {name.rpartition('/')[2]}" for index, name in zip(self._indices, self._ids, strict=True))

  def __getitem__(self, index: int) -> Record:
    record = self._source[self._indices[index]]
    if record["id"] != self._ids[index]:
      raise DataError(
        f"{self._path} was written for other data: its record {self._ids[index]} is {record['id']} here. Use the "
        "--data settings it was written with."
      )
    new: Any = {**record, "captions": self._captions[index]}
    if record["concept"] == captions_concept(record["captions"][PRIMARY]):  # its captions were its identity
      new["concept"] = captions_concept(new["captions"][PRIMARY])
    return new

  @functools.cached_property
  def sample(self) -> int:
    """Number that changes with the captions of a sample of the records."""
    return sample(self)

  def captions(self, index: int) -> Captions:
    """The captions alone."""
    return self._captions[index]

  def siblings(self, index: int) -> list[int]:
    """Those that the file lists."""
    others = siblings(self._source, self._indices[index])
    return [self._places[other] for other in others if other in self._places]


def write_captions(path: str | Path, records: Iterable[tuple[int, str, Captions]]) -> None:
  """Writes (index in the source, id, captions by kind; "name" is the main one) of those to keep, as JSON lines."""
  rows = ({"index": index, "id": name, "captions": dict(captions)} for index, name, captions in records)
  write_atomically(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _rows(path: Path, size: int) -> list[tuple[int, str, Captions]]:
  try:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"Cannot read --data.captions-from {path}: {error}. It is written by write_captions.") from error
  rows: dict[int, tuple[int, str, Captions]] = {}
  for number, line in enumerate(lines, 1):
    if line.strip():
      index, name, captions = _row(line, f"{path}, line {number}")
      if not 0 <= index < size or index in rows:
        raise DataError(f"{path}, line {number}: index {index} is not one of {size} records, or is there twice.")
      rows[index] = index, name, captions
  return list(rows.values())


def _row(line: str, where: str) -> tuple[int, str, Captions]:
  remedy = f"A line is {_SHAPE}."
  row = json_object(line, where, remedy)
  index, name, captions = (row.get(field) for field in ("index", "id", "captions"))
  if type(index) is not int or not isinstance(name, str) or not isinstance(captions, dict) or not captions.get(PRIMARY):
    raise DataError(f"{where}: index, id or captions are missing or wrong. {remedy}")
  for kind, texts in captions.items():
    if not isinstance(texts, list):
      raise DataError(f"{where}: the captions of kind {kind!r} are {texts!r:.60}, no list. {remedy}")
    if texts:
      captions[kind] = read_captions(texts, f"{where}: the captions of kind {kind!r}:", remedy)
  return index, name, captions


_SHAPE = '{"index": 3, "id": "twemoji/1f600", "captions": {"name": ["grinning face"]}}'

"""Flickr30k as published, or with Karpathy's splits: images with five captions each."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmjax.data.annotations import (
  CaptionedImages,
  Complaints,
  Images,
  data_folder,
  fault,
  first_of,
  hashed_split,
  read_json,
)
from mmjax.data.captions import caption_fault, clean
from mmjax.data.errors import DataError, unknown
from mmjax.data.sources.base import Reading, Source

KARPATHY, TOKEN = "dataset_flickr30k.json", "results_20130124.token"
FOLDERS = ("flickr30k-images", "flickr30k_images", "images")
LAYOUT = f"{KARPATHY} or {TOKEN}, and the images in flickr30k-images/"
SPLITS = ("train", "validation", "test", "all")
_KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Flickr30k(Source):
  """Captioned images of Flickr30k (Young et al. 2014) as published: five captions each.

  Splits: "train", "validation", "test", "all". Without Karpathy's file there is no "test".
  """

  path: str | None = None
  """Directory with the annotation files and the folders of images."""

  def open(self, split: str, reading: Reading) -> "Flickr30kRecords":
    return Flickr30kRecords(self, split, reading)


class Flickr30kRecords(CaptionedImages):
  """The captioned images of a split, in the file's order.

  Karpathy's file has the splits "train" (29,000), "validation" and "test" (1,000 each); without it a hash of the
  file name keeps about 5% of the images for "validation". Captions are held in memory (about 40 MB).

  Raises:
    DataError: naming file, entry or line, and field: a file or image is missing, or an entry is not as published.

  Attributes:
    num_skipped: bad entries left out (--data.on-bad-record skip).
  """

  def __init__(self, config: Flickr30k, split: str, reading: Reading):
    if split not in SPLITS:
      raise unknown("flickr30k split", split, SPLITS)
    folder = data_folder("flickr30k", config.path, LAYOUT)
    file = first_of(folder, (KARPATHY, TOKEN), LAYOUT)
    self._pictures = Images(first_of(folder, FOLDERS, LAYOUT))
    complaints = Complaints(reading)
    entries = _karpathy(file, complaints) if file.name == KARPATHY else _token(file, complaints)
    self._captions: dict[str, list[str]] = {}
    parts: dict[str, str] = {}
    for where, name, texts, part in entries:
      if name not in self._pictures:
        complaints.add(f"{where}: there is no image {name!r} in {self._pictures.folder}.")
      elif parts.setdefault(name, part) != part:
        complaints.add(f"{where}: the image {name!r} is in the split {part!r}, and before in {parts[name]!r}.")
      elif split in ("all", part):
        self._captions.setdefault(name, []).extend(texts)
    self._names, self.num_skipped = list(self._captions), complaints.number
    if not self._names:
      raise DataError(f"{file} has no image of the split {split!r}. Fetch it again, or put {KARPATHY} beside it.")


_Entry = tuple[str, str, list[str], str]
"""Place in the file, file name, captions, split."""


def _karpathy(file: Path, complaints: Complaints) -> Iterator[_Entry]:
  seen = set[tuple[str, str]]()
  for place, entry in enumerate(read_json(file, ("images",), _compact)[0]):
    where = f"{file}: images[{place}]"
    wrong = fault(entry, {"filename": str, "split": str, "sentences": list}, where)
    if wrong is None and entry["split"] not in _KARPATHY_SPLITS:
      wrong = f"{where}: the field 'split' is {entry['split']!r}, not {', '.join(_KARPATHY_SPLITS)}."
    if wrong is None and not (entry["sentences"] and not any(map(caption_fault, entry["sentences"]))):
      wrong = f"{where} ({entry['filename']}): `sentences` must be objects with a text `raw`."
    if wrong is None and (entry["filename"], entry["split"]) in seen:
      wrong = f"{where}: the image {entry['filename']!r} is there twice. Is the file joined to itself?"
    if wrong is not None:
      complaints.add(wrong)
    else:
      seen.add((entry["filename"], entry["split"]))
      yield where, entry["filename"], [clean(text) for text in entry["sentences"]], _KARPATHY_SPLITS[entry["split"]]


def _compact(entry: dict) -> Any:
  """Return the text of a sentence. Other objects are returned unchanged."""
  return clean(entry["raw"]) if fault(entry, {"raw": str}, "") is None else entry


def _token(file: Path, complaints: Complaints) -> Iterator[_Entry]:
  try:
    lines = file.read_text(encoding="utf-8-sig").split("\n")  # splitlines() also splits at characters of captions
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"Cannot read {file}: {error}. It must be the file as published; fetch it again.") from error
  seen = set[str]()
  for number, line in enumerate(lines, 1):
    if line.strip():
      where = f"{file}, line {number}"
      key, _, text = line.partition("\t")
      name, _, place = key.rpartition("#")
      wrong = caption_fault(text, typed=False)
      if wrong is not None or not (name and place.isdecimal()):
        complaints.add(f"{where} is not NAME.jpg#NUMBER, a tab and a caption{f': it {wrong}' if wrong else ''}.")
      elif key in seen:
        complaints.add(f"{where}: {key} is there twice. Is the file joined to itself?")
      else:
        seen.add(key)
        yield where, name, [clean(text)], hashed_split(name)

"""COCO captions as published: images with about five captions each."""

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.annotations import CaptionedImages, Complaints, Images, data_folder, fault, first_of, read_json
from mmjax.data.captions import clean
from mmjax.data.errors import DataError, unknown
from mmjax.data.sources.base import Reading, Source

LAYOUT = "annotations/captions_train2017.json (and captions_val2017.json) and the images in train2017/ and val2017/"
YEARS = ("2017", "2014")
_FILE = "annotations/captions_{}{}.json"
_PARTS = {"train": "train", "validation": "val"}
_IMAGE: Mapping[str, type] = {"id": int, "file_name": str}
_CAPTION: Mapping[str, type] = {"image_id": int, "caption": str}
log = logging.getLogger(__name__)


class _Image(NamedTuple):
  id: int
  file_name: str


class _Caption(NamedTuple):
  image_id: int
  caption: str
  id: Any = None


@dataclasses.dataclass(frozen=True)
class Coco(Source):
  """Captioned images of COCO (Lin et al. 2014) as published: about five captions each.

  Splits: "train", "validation": both of 2017, or else both of 2014. Most of val2014 is in train2017.
  """

  path: str | None = None
  """Directory with the annotation files and the folders of images."""

  def open(self, split: str, reading: Reading) -> "CocoRecords":
    return CocoRecords(self, split, reading)


class CocoRecords(CaptionedImages):
  """The captioned images of "train" or "validation", in the file's order.

  The annotation file is read once (train2017: 92 MB; 0.3 GB at the peak, 0.2 GB kept); images when asked for.

  Raises:
    DataError: naming file, entry and field: a file or image is missing, or an entry is not as published.

  Attributes:
    num_skipped: bad entries left out (--data.on-bad-record skip).
  """

  def __init__(self, config: Coco, split: str, reading: Reading):
    if split not in _PARTS:
      raise unknown("coco split", split, _PARTS)
    part, folder = _PARTS[split], data_folder("coco", config.path, LAYOUT)
    year = _year(folder)
    file = first_of(folder, [_FILE.format(part, year)], LAYOUT)
    self._pictures = Images(first_of(folder, [f"{part}{year}", f"images/{part}{year}"], LAYOUT))
    complaints = Complaints(reading)
    images, entries = read_json(file, ("images", "annotations"), _compact)
    names = _names(images, str(file), self._pictures, complaints)
    self._captions: dict[str, list[str]] = {}
    for where, entry in _annotations(entries, str(file), complaints):
      if entry.image_id not in names:
        complaints.add(f"{where} is of image_id {entry.image_id}, which `images` does not list.")
      elif (name := names[entry.image_id]) is not None:
        self._captions.setdefault(name, []).append(entry.caption)
    self._names, self.num_skipped = list(self._captions), complaints.number
    if not self._names:
      raise DataError(f"{file} captions no image. Fetch it again.")
    if without := [name for name in names.values() if name is not None and name not in self._captions]:
      log.warning("%s: %d images have no caption and are left out, the first is %s", file, len(without), without[0])


def _year(folder: Path) -> str:
  """The year of both splits: the first one that has both, or else one. Splits of two years share images."""
  there = {year: [part for part in _PARTS.values() if (folder / _FILE.format(part, year)).exists()] for year in YEARS}
  return max(YEARS, key=lambda year: len(there[year]))


def _compact(entry: dict) -> Any:
  """A good annotation or image without what is not used; any other stays as it is. The list it is in is not known."""
  if "file_name" not in entry and fault(entry, _CAPTION, "") is None:
    return _caption(entry)
  if "image_id" not in entry and fault(entry, _IMAGE, "") is None:
    return _Image(entry["id"], entry["file_name"])
  return entry


def _caption(entry: dict) -> _Caption:
  return _Caption(entry["image_id"], clean(entry["caption"]), entry.get("id"))


def _annotations(entries: Sequence[Any], file: str, complaints: Complaints) -> Iterator[tuple[str, _Caption]]:
  """(place in the file, annotation) of the good annotations."""
  seen = set[int]()
  for place, entry in enumerate(entries):
    where = f"{file}: annotations[{place}]"
    if not isinstance(entry, _Caption):
      wrong = f"{where} is not as published." if isinstance(entry, _Image) else fault(entry, _CAPTION, where)
      if wrong is not None:
        complaints.add(wrong)
        continue
      entry = _caption(entry)
    if isinstance(entry.id, int) and entry.id in seen:
      complaints.add(f"{where}: the id {entry.id} is there twice. Is the file joined to itself?")
      continue
    if isinstance(entry.id, int):
      seen.add(entry.id)
    yield where, entry


def _names(images: Sequence[Any], file: str, pictures: Images, complaints: Complaints) -> dict[int, str | None]:
  """File names by image id; None where the image is not there."""
  names: dict[int, str | None] = {}
  for place, entry in enumerate(images):
    where = f"{file}: images[{place}]"
    if not isinstance(entry, _Image):
      wrong = f"{where} is not as published." if isinstance(entry, _Caption) else fault(entry, _IMAGE, where)
      if wrong is not None:
        complaints.add(wrong)
        continue
      entry = _Image(entry["id"], entry["file_name"])
    number, name = entry
    if number in names and names[number] != name:
      complaints.add(f"{where}: the id {number} is there twice, with the images {names[number]!r} and {name!r}.")
      continue
    names[number] = name if name in pictures else None
    if names[number] is None:
      complaints.add(f"{where}: there is no image {name!r} in {pictures.folder}.")
  return names

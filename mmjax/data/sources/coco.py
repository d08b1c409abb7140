"""COCO captions as published: images with about five captions each."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.annotations import CaptionedImages, Complaints, Images, data_folder, fault, first_of, read_json
from mmjax.data.captions import clean
from mmjax.data.errors import DataError, unknown
from mmjax.data.sources.base import Reading, Source

LAYOUT = "annotations/captions_train2017.json (and captions_val2017.json) and the images in train2017/ and val2017/"
YEARS = ("2017", "2014")
_PARTS = {"train": "train", "validation": "val"}
_IMAGE: Mapping[str, type] = {"id": int, "file_name": str}
_CAPTION: Mapping[str, type] = {"image_id": int, "caption": str}


@dataclasses.dataclass(frozen=True)
class Coco(Source):
  """Captioned images of COCO (Lin et al. 2014) as published: about five captions each.

  Splits: "train", "validation": of 2017, or else of 2014.
  """

  path: str | None = None
  """Directory with the annotation files and the folders of images."""

  def open(self, split: str, reading: Reading) -> "CocoRecords":
    return CocoRecords(self, split, reading)


class CocoRecords(CaptionedImages):
  """The captioned images of "train" or "validation", in the file's order: of 2017, or else of 2014.

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
    file = first_of(folder, [f"annotations/captions_{part}{year}.json" for year in YEARS], LAYOUT)
    year = file.stem[-4:]
    self._pictures = Images(first_of(folder, [f"{part}{year}", f"images/{part}{year}"], LAYOUT))
    complaints = Complaints(reading)
    images, entries = read_json(file, ("images", "annotations"), _compact)
    names = _names(images, str(file), self._pictures, complaints)
    self._captions: dict[str, list[str]] = {}
    for place, entry in enumerate(entries):
      where = f"{file}: annotations[{place}]"
      if not isinstance(entry, tuple):
        complaints.add(fault(entry, _CAPTION, where) or f"{where} is not as published.")
      elif entry[0] not in names:
        complaints.add(f"{where} is of image_id {entry[0]}, which `images` does not list.")
      elif (name := names[entry[0]]) is not None:
        self._captions.setdefault(name, []).append(entry[1])
    self._names, self.num_skipped = list(self._captions), complaints.number
    if not self._names:
      raise DataError(f"{file} captions no image. Fetch it again.")


def _compact(entry: dict) -> Any:
  """(image_id, caption) or (id, file_name) of a good entry; any other stays as it is, to be complained of."""
  if fault(entry, _CAPTION, "") is None:
    return entry["image_id"], clean(entry["caption"])
  return (entry["id"], entry["file_name"]) if fault(entry, _IMAGE, "") is None else entry


def _names(images: Sequence[Any], file: str, pictures: Images, complaints: Complaints) -> dict[int, str | None]:
  """File names by image id; None where the image is not there."""
  names: dict[int, str | None] = {}
  for place, entry in enumerate(images):
    where = f"{file}: images[{place}]"
    if not isinstance(entry, tuple):
      complaints.add(fault(entry, _IMAGE, where) or f"{where} is not as published.")
      continue
    number, name = entry
    if number in names and names[number] != name:
      complaints.add(f"{where}: the id {number} is there twice, with the images {names[number]!r} and {name!r}.")
      continue
    names[number] = name if name in pictures else None
    if names[number] is None:
      complaints.add(f"{where}: there is no image {name!r} in {pictures.folder}.")
  return names

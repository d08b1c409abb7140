"""Images, sounds or videos in one folder per class."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmjax.data.annotations import Complaints
from mmjax.data.columns.base import Column
from mmjax.data.columns.class_label import ClassLabel
from mmjax.data.columns.text import Caption
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import SAMPLED, digest
from mmjax.data.images.files import read_image_file
from mmjax.data.records import PRIMARY, Media, Record, concept_number
from mmjax.data.sound.headers import EXTENSIONS
from mmjax.data.sources.base import Reading, Source, media_columns
from mmjax.data.split_folders import split_folders
from mmjax.data.split_names import HELD_OUT, TRAINING
from mmjax.data.video.headers import EXTENSIONS as VIDEOS

SUFFIXES = {
  "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
  "sound": EXTENSIONS,
  "video": VIDEOS,
}
SPLITS = ("train", "validation")
_LAYOUT = "DIR/train/CLASS/IMAGE and DIR/validation/CLASS/IMAGE, or DIR/CLASS/IMAGE"


@dataclasses.dataclass(frozen=True)
class ClassFolders(Source):
  """A directory with one folder per class: DIR/train/CLASS/IMAGE and DIR/validation/CLASS/IMAGE, or DIR/CLASS/IMAGE.

  Splits: "train", "validation", "all". Folders of splits may also be called training, val, valid, dev, test and the
  like, in any case of letters. One for tests is not read where there is one for validation. Without a folder per split,
  a hash of the image's bytes keeps `validation_share` for validation: always the same images, and equal images on the
  same side.
  """

  path: str | None = None
  """The directory."""
  validation_share: float = 0.2
  """Share of the images for validation, if the directory has no folder per split."""
  media: Media = "image"
  """Content of the files: images, sounds (.wav, .flac, .ogg, .mp3), or videos (.mp4, .webm, .mkv, .gif, .webp)."""

  @property
  def columns(self) -> dict[str, Column]:
    return {**media_columns(self.media), "text": Caption(), "label": ClassLabel()}

  @property
  def title(self) -> str:
    return self.path or super().title

  def open(self, split: str, reading: Reading) -> "ClassRecords":
    if self.path is None:
      raise DataError(f"--data.source class_folders needs --data.source.path DIR: {_LAYOUT}.")
    if split not in (*SPLITS, "all"):
      raise unknown("split of class folders", split, (*SPLITS, "all"))
    root = Path(self.path).expanduser()
    if not root.is_dir():
      raise DataError(f"--data.source.path {root} is not a directory. Give the one with a folder per class.")
    complaints = Complaints(reading)
    folders = split_folders(root, SUFFIXES[self.media])
    if folders is None:
      files = list(_files(root, self.media, complaints))
      images = [image for image in files if split in ("all", self._side(image[0], complaints))]
    else:
      parts = [split] if split != "all" else [part for part in SPLITS if part in folders]
      if parts[0] not in folders:
        raise DataError(
          f"{root} has no folder for {split}, only {', '.join(folder.name for folder in folders.values())}. "
          f"Make one of {', '.join(TRAINING if split == 'train' else HELD_OUT)}."
        )
      images = [file for part in parts for file in _files(folders[part], self.media, complaints)]
    return ClassRecords(images, root, reading, self.media, complaints.number)

  def _side(self, path: Path, complaints: Complaints) -> str | None:
    """Split of a file, by the hash of its bytes. None: it cannot be read, which is counted."""
    try:
      status = path.stat()
      share = _place(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
      complaints.add(f"Cannot read {path}: {error.strerror}. Restore it or move it away.")
      return None
    return "validation" if share < self.validation_share * 2**64 else "train"


@functools.cache  # a run opens both splits, more than once
def _place(path: Path, size: int, changed: int) -> int:
  """A number below 2^64 for the bytes of a file. Size and time of change say which bytes are meant."""
  del size, changed
  return int.from_bytes(hashlib.sha256(path.read_bytes()).digest()[:8], "big")


def _files(folder: Path, media: Media, complaints: Complaints) -> Iterator[tuple[Path, str]]:
  """(path, class) of the files in the folders of a folder, sorted. Anything else is an error, or is counted."""
  for each in sorted(folder.iterdir()):
    if each.name.startswith("."):
      continue
    if not each.is_dir():
      complaints.add(f"{each} is a file beside the folders of the classes. Move it away: the layout is {_LAYOUT}.")
      continue
    number = 0
    for path in sorted(each.iterdir()):
      if not path.name.startswith("."):
        number += 1
        wrong = _fault(path, media)
        if wrong is None:
          yield path, each.name
        else:
          complaints.add(wrong)
    if not number:
      complaints.add(f"{each} is the folder of a class, and is empty. Restore its {media}s, or remove it.")


def _fault(path: Path, media: Media) -> str | None:
  """Describe why a path in the folder of a class is none of its files. None: it is one."""
  suffixes = SUFFIXES[media]
  if path.is_dir():
    return (
      f"{path} is a folder in that of a class: the layout is {_LAYOUT}. Give --data.source.path {path.parent} if its "
      "folders are the classes, or move its files up."
    )
  if not path.is_file():
    return f"{path} is {'a link to nothing' if path.is_symlink() else 'not a file'}. Restore it or move it away."
  if path.suffix.lower() in suffixes:
    return None
  what = "an image" if media == "image" else f"a {media}"
  other = next((name for name, known in SUFFIXES.items() if path.suffix.lower() in known), None)
  hint = f" Files of {other}s need --data.source.media {other}." if other else ""
  return f"{path} is not {what} ({', '.join(suffixes)}). Move it away, or convert it.{hint}"


class ClassRecords:
  """The files, each with its class as label and as caption.

  Args:
    images: (path, class) of each file.
    root: the directory.
    reading: settings that all sources share.
    media: field of a record with the content of its file.
    num_skipped: files that were left out, with on_bad_record "skip".
  """

  def __init__(
    self,
    images: list[tuple[Path, str]],
    root: Path,
    reading: Reading,
    media: Media = "image",
    num_skipped: int = 0,
  ):
    if not images:
      raise DataError(f"{root} has no {media}s of this split in folders of classes. The layout is {_LAYOUT}.")
    self._images, self._root, self._max_bytes, self._media = images, root, reading.max_bytes, media
    self.num_skipped = num_skipped

  def __len__(self) -> int:
    return len(self._images)

  def __getitem__(self, index: int) -> Record:
    record = self.without_image(index)
    record[self._media] = read_image_file(self._images[index][0], self._max_bytes, otherwise="move it away")
    return record

  def without_image(self, index: int) -> Record:
    """The record without its file, which is not read."""
    path, label = self._images[index]
    words = label.replace("_", " ").replace("-", " ")
    return Record(captions={PRIMARY: [words]}, label=label, id=str(path), concept=concept_number(label))

  @property
  def fingerprint(self) -> int:
    """Number that changes with the file names and their order."""
    return digest(str(path.relative_to(self._root)) for path, _ in self._images)

  @property
  def sample(self) -> int:
    """Number that changes with the sizes of a sample of the files."""
    places = np.unique(np.linspace(0, len(self) - 1, min(SAMPLED, len(self))).round().astype(np.int64))
    files = [self._images[place][0] for place in places.tolist()]
    return digest(f"{file.name} {file.stat().st_size if file.is_file() else 'bad'}" for file in files)

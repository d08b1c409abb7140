"""Images, sounds or videos in one folder per class."""

import dataclasses
import functools
import hashlib
from pathlib import Path

from mmjax.data.columns.base import Column
from mmjax.data.columns.class_label import ClassLabel
from mmjax.data.columns.text import Caption
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import digest
from mmjax.data.images.files import read_image_file
from mmjax.data.records import PRIMARY, Media, Record, concept_number
from mmjax.data.sound.headers import EXTENSIONS
from mmjax.data.sources.base import Reading, Source, media_columns
from mmjax.data.video.headers import EXTENSIONS as VIDEOS

SUFFIXES = {
  "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
  "sound": EXTENSIONS,
  "video": VIDEOS,
}
SPLITS = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "test")}
_LAYOUT = "DIR/train/CLASS/IMAGE and DIR/validation/CLASS/IMAGE, or DIR/CLASS/IMAGE"


@dataclasses.dataclass(frozen=True)
class ClassFolders(Source):
  """A directory with one folder per class: DIR/train/CLASS/IMAGE and DIR/validation/CLASS/IMAGE, or DIR/CLASS/IMAGE.

  Splits: "train", "validation", "all". Without a folder per split, a hash of the image's bytes keeps
  `validation_share` for validation: always the same images, and equal images on the same side.
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
    found = {name: [root / each for each in names if (root / each).is_dir()] for name, names in SPLITS.items()}
    if found["train"]:
      wanted = [folder for name, folders in found.items() if split in (name, "all") for folder in folders[:1]]
      if not wanted:
        raise DataError(f"{root} has no folder for validation: make one of {', '.join(SPLITS['validation'])}.")
      return ClassRecords([file for folder in wanted for file in _files(folder, self.media)], root, reading, self.media)
    images = [image for image in _files(root, self.media) if split in ("all", self._side(image[0]))]
    return ClassRecords(images, root, reading, self.media)

  def _side(self, path: Path) -> str:
    try:
      status = path.stat()
      share = _place(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
      raise DataError(f"Cannot read {path}: {error.strerror}. Restore it or move it away.") from error
    return "validation" if share < self.validation_share * 2**64 else "train"


@functools.cache  # a run opens both splits, more than once
def _place(path: Path, size: int, changed: int) -> int:
  """A number below 2^64 for the bytes of a file. Size and time of change say which bytes are meant."""
  del size, changed
  return int.from_bytes(hashlib.sha256(path.read_bytes()).digest()[:8], "big")


def _files(folder: Path, media: Media) -> list[tuple[Path, str]]:
  """(path, class) of the files in the folders of a folder, sorted. Raises DataError, which names any other file."""
  files, suffixes = [], SUFFIXES[media]
  for each in sorted(folder.iterdir()):
    if each.name.startswith("."):
      continue
    if not each.is_dir():
      raise DataError(f"{each} is a file beside the folders of the classes. Move it away: the layout is {_LAYOUT}.")
    for path in sorted(each.rglob("*")):
      if path.is_file() and not path.name.startswith("."):
        if path.suffix.lower() not in suffixes:
          what = "an image" if media == "image" else f"a {media}"
          other = next((name for name, known in SUFFIXES.items() if path.suffix.lower() in known), None)
          hint = f" Files of {other}s need --data.source.media {other}." if other else ""
          raise DataError(f"{path} is not {what} ({', '.join(suffixes)}). Move it away, or convert it.{hint}")
        files.append((path, each.name))
  return files


class ClassRecords:
  """The files, each with its class as label and as caption.

  Args:
    images: (path, class) of each file.
    root: the directory.
    reading: settings that all sources share.
    media: field of a record with the content of its file.
  """

  def __init__(self, images: list[tuple[Path, str]], root: Path, reading: Reading, media: Media = "image"):
    if not images:
      raise DataError(f"{root} has no {media}s of this split in folders of classes. The layout is {_LAYOUT}.")
    self._images, self._root, self._max_bytes, self._media = images, root, reading.max_bytes, media

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

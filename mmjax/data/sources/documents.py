"""Texts with images among their words, or dialogues about images: JSON lines, and the images in a directory."""

import base64
import binascii
import dataclasses
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmjax.data.captions import REMEDY, json_object, text_fault
from mmjax.data.columns.base import Column
from mmjax.data.columns.interleaved import PLACE, Dialogue, Interleaved
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import digest
from mmjax.data.image_names import find_image
from mmjax.data.images.files import read_image_file
from mmjax.data.records import concept_number
from mmjax.data.sources.base import Reading, Source
from mmjax.data.sources.folder import HELD_OUT, SPLITS, TRAINING, VALIDATION_FRACTION

VIDEOS = (".mp4", ".webm", ".mkv", ".gif")
"""Extensions of files that are opened as videos."""
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}
"""Roles of a turn, as LLaVA's files and others name them."""
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Documents(Source):
  """A directory with *.jsonl, one document a line, and its images. Several files are shards of one data set.

  A line is one of these forms; the first field tells which.

  * `text`, with `<image>` where an image is, and `images`, the file names.
  * `texts` and `images`, lists of equal length with null where the other has something (OBELICS).
  * `text_list` and `image_info`, a list of objects with `image_name` or `image_base64`, and `matched_text_index`, the
    sentence that the image stands before (MMC4).
  * `turns`, a list of [role, text] or of {"role", "content"}, and `images`; or LLaVA's `conversations` and `image`.

  Further fields that are texts, such as `prompt` and `answer`, are fields of the record. Splits: "train", "validation",
  "all". A field `split` decides where there is one. Otherwise a hash of the line keeps about 5% for validation.
  """

  path: str | None = None
  """Directory of the files and of the images."""
  content: Literal["text", "dialogue"] = "text"
  """text: the column Interleaved; dialogue: the column Dialogue."""

  @property
  def columns(self) -> dict[str, Column]:
    return {"text": Interleaved() if self.content == "text" else Dialogue()}

  @property
  def features(self) -> tuple[str, ...]:
    return ("text", "text_images", *(("text_said",) if self.content == "dialogue" else ()))

  @property
  def title(self) -> str:
    return self.path or super().title

  def open(self, split: str, reading: Reading) -> "DocumentRecords":
    return DocumentRecords(self, split, reading)


class _Line(NamedTuple):
  """Place of a document: file, number of the line, and its bytes in the file."""

  file: Path
  number: int
  start: int
  size: int


class DocumentRecords:
  """The documents of a split, in the order of the files' names. Only their places are held in memory.

  Attributes:
    num_skipped: lines that were left out, with on_bad_record "skip".

  Raises:
    DataError: naming the file and line, and what to do.
  """

  def __init__(self, config: Documents, split: str, reading: Reading):
    if config.path is None:
      raise DataError("--data.source documents needs --data.source.path DIR: a directory with *.jsonl and images.")
    if split not in SPLITS:
      raise unknown("split of documents", split, SPLITS)
    self._directory, self._reading, self._dialogue = (
      Path(config.path).expanduser(),
      reading,
      config.content == "dialogue",
    )
    self.features = ("text",)
    self.num_skipped = 0
    files = sorted(self._directory.glob("*.jsonl"))
    if not files:
      raise DataError(f"{self._directory} has no *.jsonl: write one with a document in each line.")
    self._lines = [line for line, own in self._read(files) if split in ("all", own)]
    if not self._lines:
      raise DataError(f"{self._directory} has no document of the split {split!r}. Add lines, or a field `split`.")

  def __len__(self) -> int:
    return len(self._lines)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the files' names, and with the places of the documents."""
    return digest(f"{line.file.name} {line.start} {line.size}" for line in self._lines)

  def __getitem__(self, index: int) -> Mapping[str, Any]:
    return self._record(index, read=True)

  def without_image(self, index: int) -> Mapping[str, Any]:
    """The record, without reading its images."""
    return self._record(index, read=False)

  def _record(self, index: int, *, read: bool) -> dict[str, Any]:
    line = self._lines[index]
    place = f"{line.file}, line {line.number}"
    with line.file.open("rb") as file:
      file.seek(line.start)
      fields = _parsed(file.read(line.size), place)
    found = _dialogue(fields, place) if self._dialogue else _text(fields, place)
    images = found.pop("images")
    said = "\n".join(text for _, text in found["turns"]) if self._dialogue else found["text"]
    own = {name: value for name, value in fields.items() if isinstance(value, str) and name not in found}
    loaded = [self._load(image, place) if read else b"" for image in images]
    return {**own, **found, "images": loaded, "id": place, "concept": concept_number(said)}

  def _load(self, image: Any, place: str) -> Any:
    """Bytes of an image, or the path of a video."""
    if isinstance(image, bytes):
      return image
    path = Path(find_image(self._directory, image, place).path)
    return str(path) if path.suffix.lower() in VIDEOS else read_image_file(
      path, self._reading.max_bytes, otherwise="remove the document"
    )  # fmt: skip

  def _read(self, files: Sequence[Path]) -> Iterator[tuple[_Line, str]]:
    """Yield every document with its split."""
    for path in files:
      try:
        with path.open("rb") as file:
          start = 0
          for number, data in enumerate(file, 1):
            line, start = _Line(path, number, start, len(data)), start + len(data)
            if data.strip():
              try:
                yield line, _split(_parsed(data, f"{path}, line {number}"), path.name, data)
              except DataError as error:
                if not self._reading.skip:
                  raise
                self.num_skipped += 1
                log.warning("Skipped a document: %s", error)
      except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}. Check its permissions.") from error


def _parsed(data: bytes, place: str) -> Mapping[str, Any]:
  try:
    return json_object(data.decode("utf-8-sig"), place, "Each line must be one object.")
  except UnicodeDecodeError as error:
    raise DataError(f"{place}: not UTF-8 ({error}). {REMEDY}") from error


def _split(fields: Mapping[str, Any], file: str, data: bytes) -> str:
  text = fields.get("split")
  if text is None:
    number = int.from_bytes(hashlib.sha256(data.strip()).digest()[:8], "big")
    return "validation" if number < VALIDATION_FRACTION * 2**64 else "train"
  if text not in (*TRAINING, *HELD_OUT):
    raise DataError(f"{file}: the field 'split' is {text!r:.60}. Write {', '.join((*TRAINING, *HELD_OUT))}.")
  return "train" if text in TRAINING else "validation"


def _text(fields: Mapping[str, Any], place: str) -> dict[str, Any]:
  """Text with `<image>`, and images (names or bytes), of any of the forms."""
  if "text" in fields:
    return {"text": _worded(fields["text"], place), "images": _list(fields, "images", place)}
  if "texts" in fields:
    texts, images = _list(fields, "texts", place), _list(fields, "images", place)
    if len(texts) != len(images):
      raise DataError(
        f"{place}: there are {len(texts)} texts and {len(images)} images, but one of the two at each place."
      )
    parts = [PLACE if text is None else _worded(text, place) for text in texts]
    return {"text": " ".join(parts), "images": [image for image in images if image is not None]}
  if "text_list" in fields:
    return _mmc4(fields, place)
  raise DataError(f"{place}: has no field text, texts or text_list. {REMEDY}")


def _mmc4(fields: Mapping[str, Any], place: str) -> dict[str, Any]:
  sentences = [_worded(text, place) for text in _list(fields, "text_list", place)]
  before: dict[int, list[Any]] = {}
  for info in _list(fields, "image_info", place):
    index = info.get("matched_text_index") if isinstance(info, dict) else None
    if not isinstance(index, int) or not 0 <= index < len(sentences):
      raise DataError(
        f"{place}: an image has matched_text_index {index!r:.40}, and there are {len(sentences)} texts. {REMEDY}"
      )
    before.setdefault(index, []).append(
      _decoded(info["image_base64"], place) if "image_base64" in info else info.get("image_name")
    )
  parts = [f"{PLACE} " * len(before.get(index, ())) + sentence for index, sentence in enumerate(sentences)]
  return {"text": " ".join(parts), "images": [image for index in sorted(before) for image in before[index]]}


def _dialogue(fields: Mapping[str, Any], place: str) -> dict[str, Any]:
  """Turns (role, text), and images, of any of the forms."""
  if "conversations" in fields:
    turns = [_turn(turn, ("from", "value"), place) for turn in _list(fields, "conversations", place)]
    images = [fields["image"]] if "image" in fields else []
  elif "turns" in fields:
    turns = [_turn(turn, ("role", "content"), place) for turn in _list(fields, "turns", place)]
    images = _list(fields, "images", place) if "images" in fields else []
  else:
    raise DataError(f"{place}: has no field turns or conversations. {REMEDY}")
  return {"turns": turns, "images": images}


def _turn(turn: Any, names: tuple[str, str], place: str) -> tuple[str, str]:
  """(role, text) of a list of two, or of an object with these names."""
  found: Any = [turn.get(name) for name in names] if isinstance(turn, dict) else turn
  if not isinstance(found, list) or len(found) != 2 or not all(isinstance(part, str) for part in found):
    raise DataError(f"{place}: a turn is {turn!r:.60}, not a role and a text. {REMEDY}")
  role, text = map(str, found)
  return ROLES.get(role, role), text


def _list(fields: Mapping[str, Any], name: str, place: str) -> list[Any]:
  value = fields.get(name)
  if not isinstance(value, list):
    raise DataError(f"{place}: the field {name!r} is {value!r:.40}, not a list. {REMEDY}")
  return value


def _worded(text: Any, place: str) -> str:
  fault = text_fault(text)
  if fault is not None:
    raise DataError(f"{place}: a text {fault}. {REMEDY}")
  return text


def _decoded(text: Any, place: str) -> bytes:
  try:
    return base64.b64decode(text, validate=True)
  except (binascii.Error, TypeError, ValueError) as error:
    raise DataError(f"{place}: an image_base64 is not base64 ({error}). {REMEDY}") from error

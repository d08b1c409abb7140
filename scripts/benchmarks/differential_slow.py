"""The obvious slow reader of a folder: the csv and json modules, os.walk, and Pillow with exif_transpose."""

import ast
import csv
import hashlib
import io
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from differential_cases import PRINTED, Case
from PIL import Image, ImageOps

_TRAIN = {"train", "training"}
_HELD_OUT = {"validation", "valid", "val", "dev", "eval", "test", "testing", "heldout", "held-out", "holdout"}


_MISSING = {"nan", "NaN", "None", "null", "NULL", "N/A", "#N/A", "<NA>", "\\N"}
_BLANK = "\u3164\u2800"


class Refused(Exception):
  """The slow reader does not know what this means."""


def slow_records(case: Case, split: str, on_bad_record: str) -> tuple[int, list[tuple[bytes, list[str]]]]:
  """(rows that were skipped, images with their captions) of a split."""
  images: list[dict[str, Any]] = []
  bad = 0
  for row in _rows(case):
    try:
      if isinstance(row, Refused):
        raise row
      _add(images, case.folder, *row)
    except Refused:
      if on_bad_record == "error":
        raise
      bad += 1
  chosen = [image for image in images if split in ("all", image["split"] or _by_hash(image["names"]))]
  if not chosen:
    raise Refused("no image")
  return bad, [(image["path"].read_bytes(), image["captions"]) for image in chosen]


def slow_image(data: bytes) -> tuple[tuple[int, ...], bytes]:
  """Shape and pixels, RGB or RGBA."""
  try:
    opened = Image.open(io.BytesIO(data))
    wide = opened.mode.startswith("I;16") or (opened.mode == "I" and opened.format == "PPM")
    if opened.mode == "F" or (opened.mode == "I" and not wide) or opened.width * opened.height > 10_000:
      raise Refused(opened.mode)
    transparent = opened.mode[-1] in "Aa" or "transparency" in opened.info
    image = ImageOps.exif_transpose(opened)
    if wide:
      image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    array = np.asarray(image.convert("RGBA" if transparent else "RGB"))
  except Refused:
    raise
  except Exception as error:
    raise Refused(str(error)) from error
  return array.shape, array.tobytes()


def _rows(case: Case) -> Iterator[tuple[Any, Any, Any] | Refused]:
  """(image, caption, split) of every row."""
  try:
    text = case.file.read_bytes().decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise Refused("encoding") from error
  yield from _json(text) if case.delimiter is None else _csv(text, case.delimiter, case.folder)


def _swallowed(row: list[str], header: list[str], delimiter: str, folder: Path) -> bool:
  """True if a text has a line that is a row: with a name of an image in its place."""
  for line in "\n".join(text.replace("\r", "\n").partition("\n")[2] for text in row).split("\n"):
    names = line.split(delimiter)[header.index("image") : header.index("image") + 1]
    if delimiter in line and names and names[0].strip().strip('"') and "\0" not in line:
      try:
        if os.path.isfile(os.path.join(folder, names[0].strip().strip('"'))):
          return True
      except OSError:
        pass
  return False


def _csv(text: str, delimiter: str, folder: Path) -> Iterator[tuple[Any, Any, Any] | Refused]:
  reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
  try:
    header = [name.strip() for name in next(reader, [])]
  except csv.Error as error:
    raise Refused(str(error)) from error
  header = [name.lower() for name in header]
  if any(header.count(name) != 1 for name in ("image", "caption")) or header.count("split") > 1:
    raise Refused("header")
  while True:
    try:
      row = next(reader, None)
    except csv.Error as error:
      yield Refused(str(error))
      continue
    if row is None:
      return
    if row:
      fields = dict(zip(header, row))
      bad = len(row) != len(header) or any(fields[name].lstrip().startswith('"') and fields[name][0] == " "
                                           for name in ("image", "caption"))  # fmt: skip
      bad = (
        bad
        or "\0" in "".join(row)
        or fields["caption"].strip() in _MISSING
        or _swallowed(row, header, delimiter, folder)
      )
      yield Refused("fields") if bad else (fields["image"], fields["caption"], fields.get("split"))


def _json(text: str) -> Iterator[tuple[Any, Any, Any] | Refused]:
  for line in text.replace("\r\n", "\n").split("\n"):
    if not line.strip():
      continue
    try:
      pairs = json.loads(line, object_pairs_hook=list)
      fields = dict(pairs)
      if len(fields) != len(pairs) or line[0] != "{":
        raise ValueError("not one object with each field once")
      if len({name.lower() for name in fields}) < len(fields):
        raise ValueError("a field in two cases")
      yield (
        fields["image"],
        _plain(fields["caption"]),
        {name.lower(): value for name, value in fields.items()}.get("split"),
      )
    except (ValueError, KeyError, TypeError) as error:
      yield Refused(str(error))


def _plain(value: Any) -> Any:
  """Objects were read as lists of pairs: as they are no captions, anything but a list of texts will do."""
  return 0 if isinstance(value, list) and any(isinstance(item, tuple) for item in value) else value


def _add(images: list[dict[str, Any]], folder: Path, name: Any, caption: Any, split: Any) -> None:
  path = _find(folder, name)
  captions = [_caption(text) for text in (caption if isinstance(caption, list) else [caption])]
  if not captions:
    raise Refused("no caption")
  part = _part(split)
  if images and (part is None) != (images[0]["split"] is None):
    raise Refused("a split in some rows only")
  entry = next((image for image in images if os.path.samefile(image["path"], path)), None)
  if entry is None:
    images.append({"path": path, "captions": captions, "split": part, "names": [_normal(folder, name)]})
  elif entry["split"] != part:
    raise Refused("two splits")
  else:
    entry["captions"] += captions
    entry["names"].append(_normal(folder, name))


def _find(folder: Path, name: Any) -> Path:
  if not isinstance(name, str) or not name or "\0" in name:
    raise Refused("name")
  if os.path.isfile(os.path.join(folder, name)):
    return folder / name
  for place, _, files in os.walk(folder):
    for file in files:
      if _normal(folder, os.path.join(place, file)) == _normal(folder, name):
        return Path(place) / file
  raise Refused("no such image")


def _normal(folder: Path, name: str) -> str:
  return unicodedata.normalize("NFC", os.path.relpath(os.path.normpath(os.path.join(folder, name)), folder))


def _caption(text: Any) -> str:
  if (
    not isinstance(text, str)
    or "\0" in text
    or not any(c.isprintable() and not c.isspace() and c not in _BLANK for c in text)
  ):
    raise Refused("caption")
  try:
    text.encode()
  except UnicodeEncodeError as error:
    raise Refused("surrogates") from error
  text = text.strip().lstrip("\ufeff").strip()
  printed = text in PRINTED
  try:
    value = ast.literal_eval(text)
    printed |= isinstance(value, (list, dict, set, bytes)) or (isinstance(value, tuple) and text[0] == "(")
  except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
    pass
  if printed:
    raise Refused("a printed list")
  return text


def _part(split: Any) -> str | None:
  if split is None or split == "":
    return None
  word = split.strip().lower() if isinstance(split, str) else split
  if word in _TRAIN:
    return "train"
  if word in _HELD_OUT:
    return "validation"
  raise Refused("split")


def _by_hash(names: list[str]) -> str:
  digest = hashlib.sha256(min(names).encode()).hexdigest()
  return "validation" if int(digest[:16], 16) / 2**64 < 0.05 else "train"

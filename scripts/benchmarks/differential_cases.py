"""Random cases: a folder of images under awkward names, and a file that captions them, with or without faults."""

import csv
import dataclasses
import io
import json
import os
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_inputs import mutated
from PIL import Image

NAMES = (
  "a.png", "A.png", "a b.JPG", "é ü.webp", "sub/ガ.tif", "sub/a.png", "x;y,z.gif", 'say "hi".png', "tab\tname.png",
  " lead.png", "trail.png ", r"sub\a.png", "한글.bmp", "#1.png", "100%.png", "'q'.png", "sub/deep/ö.jpeg",
)  # fmt: skip
TEXTS = (
  "a cat", "a man, a plan, a canal", 'she said "hi"', '"quoted"', "one\ntwo", "tab\there", "semi; colon", " spaced ",
  "\ufeffmarked", "ünïcödé 👍", "日本語", "nan bread", "none", "0", "1e5", "true", "2024",
  "e\u0301", "x\u2028y", "a\r\nb",
  "[music]", "{x}", "(a cat)", "(2024)", "[12:30]", "dog(s)", "Bob (left)", "[1] a cat", "[cat, dog]", "P(X=1)",
  "b", "''", '""', "'a', 'b'", "a\x85b", "back\\slash", "#hash", "=1+1", "a" * 300,
)  # fmt: skip
MISSING = ("nan", "NaN", "None", "null", "NULL", "N/A", "#N/A", "<NA>", "\\N")
"""Texts in JSON, and words for a missing value in CSV."""
PRINTED = (
  "['a', 'b']", '["a"]', '{"en": "a"}', "b'a'", '["a cat", null]', "['a cat', None]", "[None]", "[nan]", "[]", "{}",
  "[1, 2]", "[1 2]", "('a', 'b')", "('a',)", "{1: 'a'}", "{'a', 'b'}", "array(['a'], dtype=object)",
  "OrderedDict([('en', 'a')])", "deque(['a'])", "tensor(3)", "np.str_('a')", "frozenset({'a'})", "[object Object]",
)  # fmt: skip
NO_TEXTS = ("", " ", "\u200b", "\ufeff", "\u3164", "\u2800", "a\0b", *PRINTED)
NO_CAPTIONS: tuple[Any, ...] = (
  None, True, 3, float("nan"), float("inf"), {}, {"en": "a cat"}, [], ["a", None], [["a"]], [1], ["a", ""], "\ud800",
)  # fmt: skip
SPLITS = ("train", "TRAIN ", "val", "test", "validation", "Dev")
NO_SPLITS = ("", "tarin", "0", "fold 1")


@dataclasses.dataclass(frozen=True)
class Case:
  """A folder to read.

  Attributes:
    folder: the folder.
    file: its file of captions.
    delimiter: delimiter of the file; None: it has JSON lines.
    images: the content of the images, by name.
  """

  folder: Path
  file: Path
  delimiter: str | None
  images: dict[str, bytes]


Picture = tuple[str, bytes]
"""Format and content."""


def pictures() -> list[Picture]:
  """Small images of every mode in every format that Pillow writes, in the eight orientations."""
  rng, found = np.random.default_rng(0), list[Picture]()
  for number in range(40):
    base = Image.fromarray(rng.integers(0, 256, (5 + number % 3, 7, 4), dtype=np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (5, 7), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = number % 9
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO"):
      mode = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16")[(number * 3 + len(kind)) % 11]
      image = wide if mode == "I;16" else base.convert("RGB" if mode in ("P", "CMYK") else "RGBA").convert(mode)
      data = io.BytesIO()
      try:
        image.save(data, kind, **({"exif": exif} if kind not in ("GIF", "BMP", "PPM") else {}))
      except (OSError, KeyError, ValueError):
        continue
      found.append((kind, data.getvalue()))
  return found


def make_case(rng: random.Random, folder: Path, pool: Sequence[Picture]) -> Case:
  """Make a folder and its file of captions."""
  names = rng.sample(NAMES, rng.randrange(1, 7))
  names = [unicodedata.normalize(rng.choice(("NFC", "NFD")), name) for name in names]
  images = {}
  for name, (kind, data) in zip(names, rng.sample(list(pool), len(names))):
    if rng.random() < 0.2 and kind != "TIFF":  # tags of TIFF change the meaning of pixels
      data = mutated(rng, data, [data])
    images[name] = data
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
  (folder / "sub").mkdir(exist_ok=True)
  links = ["link.png", "sub/hard.png"] if rng.random() < 0.3 else []
  for link, name in zip(links, rng.sample(names, min(2, len(names)))):
    (folder / link).hardlink_to(folder / name) if "hard" in link else (folder / link).symlink_to(folder / name)
  faults = rng.choice((0.0, 0.0, 0.1, 0.4))
  word = rng.choice(SPLITS) if links else ""  # links may be of one file, which has one split
  words = {name: word or rng.choice(SPLITS) for name in [*names, *links]}
  chosen = rng.choices([*names, *links], k=rng.randrange(1, 9))
  rows = [(_asked(rng, folder, name, faults), *_said(rng, words[name], faults)) for name in chosen]
  delimiter = rng.choice((",", ",", ";", "\t", None, None))
  data = _lines(rng, rows, faults) if delimiter is None else _table(rng, rows, delimiter, faults)
  file = folder / f"list.{rng.choice(_suffixes(delimiter))}"
  file.write_bytes(data)
  return Case(folder, file, delimiter, images)


def _suffixes(delimiter: str | None) -> tuple[str, ...]:
  return ("jsonl", "JSONL", "ndjson", "json") if delimiter is None else ("csv", "CSV", "tsv", "Tab")


def _asked(rng: random.Random, folder: Path, name: str, faults: float) -> Any:
  """A name by which a row means a file, or fails to."""
  if rng.random() < faults:
    return rng.choice(("none.png", f"{name} ", name.upper(), name.replace("/", "\\"), "", "sub", f"x\0{name}"))
  form = rng.choice((name, name, f"./{name}", f"sub/../{name}", f".//{name}", os.path.join(folder, name)))
  return unicodedata.normalize(rng.choice(("NFC", "NFD")), form) if rng.random() < 0.3 else form


def _said(rng: random.Random, split: str, faults: float) -> tuple[Any, str]:
  caption = rng.choice(NO_TEXTS) if rng.random() < faults else rng.choice(TEXTS)
  caption = rng.choice(MISSING) if rng.random() < faults / 4 else caption
  return caption, rng.choice((*NO_SPLITS, *SPLITS)) if rng.random() < faults / 2 else split


def _lines(rng: random.Random, rows: Sequence[tuple[Any, Any, str]], faults: float) -> bytes:
  with_split, out = rng.random() < 0.5, []
  for name, caption, split in rows:
    said: Any = [caption, rng.choice(TEXTS)] if rng.random() < 0.2 else caption
    said = rng.choice(NO_CAPTIONS) if rng.random() < faults else said
    fields = {"image": 5 if rng.random() < faults / 4 else name, "caption": said, "extra": [1, {"a": None}]}
    fields |= {rng.choice(("split", "Split")): split} if with_split else {}
    line = json.dumps(fields, ensure_ascii=rng.random() < 0.5 or said == "\ud800")
    if rng.random() < faults / 2:
      line = rng.choice((line[:-1], f"[{line}]", line[:-1] + ', "caption": "twice"}', line + line, "null", '"text"'))
    out += [line, *([""] if rng.random() < 0.1 else [])]
  return _encoded(rng, rng.choice(("\n", "\r\n")).join(out), faults)


def _table(rng: random.Random, rows: Sequence[tuple[Any, Any, str]], delimiter: str, faults: float) -> bytes:
  with_split, text = rng.random() < 0.5, io.StringIO(newline="")
  quoting = rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
  writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=rng.choice(("\n", "\r\n")))
  header = ["id", "image", "caption", *([rng.choice(("split", "Split", "SPLIT"))] if with_split else [])]
  if rng.random() < faults / 4:
    header[0] = rng.choice(header[1:])
  writer.writerow(header)
  for number, (name, caption, split) in enumerate(rows):
    if rng.random() < faults:  # as somebody writes who does not quote
      raw = [str(number), str(name), rng.choice((caption, f'"{caption}" x', f' "{caption}"', f'"{caption}'))]
      text.write(delimiter.join([*raw, *([split] if with_split else [])]) + "\n")
    else:
      writer.writerow([number, name, caption, *([split] if with_split else [])])
  return _encoded(rng, text.getvalue(), faults)


def _encoded(rng: random.Random, text: str, faults: float) -> bytes:
  if rng.random() < faults / 4:
    return text.encode(rng.choice(("utf-16", "utf-16-le", "latin-1")), "replace")
  return text.encode(rng.choice(("utf-8", "utf-8-sig")), "surrogatepass")

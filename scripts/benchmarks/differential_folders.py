"""Random folders of images with CSV, TSV or JSON lines, read by mmjax and by an obvious slow reader: equal, or refused.

  python scripts/benchmarks/differential_folders.py --cases 10000 [--seed 0] [--out build/differential]

The slow reader is Python's csv (strict) and json, and Pillow with exif_transpose. Prints a line of JSON: the number of
comparisons by outcome. One is wrong where the results differ, where mmjax accepts what the slow reader refuses, or
where an error is not a DataError. Wrong cases are kept in --out, and the exit status is 1.
"""

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from differential_cases import Case, make_case, pictures
from differential_slow import Refused, slow_image, slow_records

from mmjax.data import DataError, Folder, Reading
from mmjax.data.images.decoding import decode
from mmjax.data.images.geometry import box_matrix
from mmjax.data.images.photo import open_photo, seen


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--cases", type=int, default=10_000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", type=Path, default=Path("build/differential"))
  options = parser.parse_args()
  logging.disable(logging.CRITICAL)
  warnings.simplefilter("ignore")
  counts = compare_all(options.cases, options.seed, options.out)
  print(json.dumps(counts))
  return int("wrong" in counts)


def compare_all(cases: int, seed: int, out: Path) -> dict[str, int]:
  """Compare the readers on random cases, a function of the seed. Returns the number of comparisons by outcome."""
  pool, counts = pictures(), Counter[str](cases=cases)
  for number in range(cases):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
      case = make_case(random.Random(f"{seed} {number}"), Path(place), pool)
      for what, outcome in outcomes(case):
        wrong = outcome not in _RIGHT
        counts["wrong" if wrong else f"{what}: {outcome}"] += 1
        if wrong:
          _keep(Path(place), out / f"{seed}-{number}")
          print(f"{seed}-{number}, {what}: {outcome}", file=sys.stderr)
  return dict(sorted(counts.items()))


def _keep(folder: Path, target: Path) -> None:
  if not target.exists():
    shutil.copytree(folder, target, symlinks=True)


def outcomes(case: Case) -> Iterator[tuple[str, str]]:
  """(what was compared, outcome): the records of every split, with errors and with skipping, and each image."""
  for split in ("all", "train", "validation"):
    for mode in ("error", "skip"):
      yield f"records, {mode}", _compared(partial(_ours, case, split, mode), partial(slow_records, case, split, mode))
  for data in case.images.values():
    yield "images", _compared(partial(_pixels, data), partial(slow_image, data))
    yield "training", _same_in_training(data)


_RIGHT = ("equal", "refused by both", "refused by mmjax alone")


def _compared(ours: Callable[[], Any], slow: Callable[[], Any]) -> str:
  try:
    expected = slow()
  except Refused as error:
    expected = error
  try:
    found = ours()
  except DataError:
    return "refused by both" if isinstance(expected, Refused) else "refused by mmjax alone"
  except Exception as error:
    return f"wrong: {error!r:.200}"
  if isinstance(expected, Refused):
    return f"wrong: mmjax gives {found!r:.100}, the slow reader refuses: {expected!s:.100}"
  return "equal" if found == expected else f"wrong: mmjax gives {found!r:.300}, the slow reader {expected!r:.300}"


def _ours(case: Case, split: str, on_bad_record: str) -> tuple[int, list[tuple[bytes, list[str]]]]:
  source = Folder(str(case.folder), captions_file=case.file.name).open(split, Reading(on_bad_record=on_bad_record))  # type: ignore[arg-type]
  return source.num_skipped, [_said(source[index]) for index in range(len(source))]


def _said(record: Any) -> tuple[bytes, list[str]]:
  return record["image"], record["captions"]["name"]


def _pixels(data: bytes) -> tuple[tuple[int, ...], bytes]:
  array = np.asarray(decode(data, record="r", max_pixels=10_000))
  return array.shape, array.tobytes()


def _same_in_training(data: bytes) -> str:
  """Training decodes a JPEG by itself: it accepts what evaluation accepts, and sees an image of the same size."""
  accepted = []
  for read in (lambda: decode(data, record="r", max_pixels=10_000).size, lambda: _photo_size(data)):
    try:
      accepted.append(read())
    except DataError:
      accepted.append(None)
  same = accepted[1] == "not a photo" or accepted[0] == accepted[1]
  return "equal" if same else f"wrong: evaluation and training see {accepted}"


def _photo_size(data: bytes) -> Any:
  photo = open_photo(data, record="r", max_pixels=10_000)
  if photo is None:
    return "not a photo"
  seen(photo, box_matrix(0, 0, *photo.size), 8)
  return photo.size


if __name__ == "__main__":
  sys.exit(main())

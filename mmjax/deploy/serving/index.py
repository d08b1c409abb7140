"""Exact search in the images of a folder. Their embeddings are saved, with a fingerprint of the model."""

from __future__ import annotations

import dataclasses
import io
import logging
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.progress import track

from mmjax.data.errors import DataError
from mmjax.data.images.decoding import decode
from mmjax.deploy.serving.batching import chosen_size, compute
from mmjax.deploy.serving.served import EMBED_IMAGE, Served
from mmjax.errors import UserError
from mmjax.files import write_atomically

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".ppm")
_FIELDS = ("fingerprint", "names", "stamps", "rows")
log = logging.getLogger(__name__)
Stamp = tuple[int, int]
"""(size in bytes, time of the last change in nanoseconds) of a file."""


@dataclasses.dataclass(frozen=True)
class Index:
  """Embeddings of images.

  Attributes:
    folder: the folder of the images.
    names: paths of the images, relative to the folder.
    rows: unit-norm embeddings, one per image.
  """

  folder: Path
  names: tuple[str, ...]
  rows: Float[np.ndarray, "images dim"]

  def nearest(self, query: Float[np.ndarray, " dim"], count: int) -> list[tuple[int, float]]:
    """(number of the image, cosine) of the nearest images, the nearest first; equals in the order of their names."""
    cosines = self.rows @ query
    count = min(count, len(cosines))
    some = np.argpartition(-cosines, count - 1)[:count]
    some = np.flatnonzero(cosines >= cosines[some].min())  # all that are equal to the last one
    order = some[np.argsort(-cosines[some], kind="stable")][:count]
    return [(int(place), float(cosines[place])) for place in order]

  def path(self, number: int) -> Path:
    """File of an image."""
    return self.folder / self.names[number]


def made_index(served: Served, folder: Path, file: Path, max_pixels: int) -> Index:
  """The index of a folder: read from its file, as far as model and images are the same, and else computed and saved.

  Args:
    served: the model.
    folder: the folder of the images. Its subfolders count.
    file: the file of the index.
    max_pixels: largest number of pixels of an image.
  Raises: UserError: the model embeds no images, the folder has none, or the file cannot be used.
  """
  if EMBED_IMAGE not in served.abilities:
    raise UserError("--images: this model has no embeddings of images, so it cannot search. Leave the option out.")
  found = listed(folder)
  known = _known(file, served.fingerprint)
  stamps = {name: stamp for name, stamp in found.items() if name not in known or known[name][0] != stamp}
  rows = {name: row for name, (stamp, row) in known.items() if found.get(name) == stamp}
  if stamps:
    rows |= dict(_embedded(served, folder, list(stamps), max_pixels))
  if not rows:
    raise UserError(f"--images {folder}: none of its {len(found)} images can be read")
  names = tuple(name for name in found if name in rows)
  index = Index(folder, names, np.stack([rows[name] for name in names]).astype(np.float32))
  if stamps or names != tuple(known):
    _save(file, served.fingerprint, index, [found[name] for name in names])
  return index


def listed(folder: Path) -> dict[str, Stamp]:
  """{relative path: stamp} of the images in a folder, sorted. Raises UserError if there are none."""
  if not folder.is_dir():
    raise UserError(f"--images {folder} is not a directory")
  paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
  if not paths:
    raise UserError(f"--images {folder} has no image; looked for {', '.join(SUFFIXES)}")
  return {
    path.relative_to(folder).as_posix(): (stat.st_size, stat.st_mtime_ns) for path in paths if (stat := path.stat())
  }


def _embedded(
  served: Served, folder: Path, names: Sequence[str], max_pixels: int
) -> Iterator[tuple[str, Float[np.ndarray, " dim"]]]:
  """(name, embedding) of images. Those that cannot be read are named in the log, and left out."""
  ability = served.abilities[EMBED_IMAGE]
  assert served.preprocess is not None
  read: Callable = served.preprocess
  held: list[tuple[str, np.ndarray]] = []
  for place in track(range(len(names)), "images", transient=True, console=Console(stderr=True)):
    try:
      data = (folder / names[place]).read_bytes()
      held.append((names[place], read(decode(data, record=str(folder / names[place]), max_pixels=max_pixels))))
    except (DataError, OSError) as error:
      log.warning("Left out of the index: %s", error)
    while held and (len(held) == ability.sizes[-1] or place == len(names) - 1):
      size = chosen_size(len(held), ability.sizes)
      now, held = held[:size], held[size:]
      yield from zip([name for name, _ in now], compute(ability, [item for _, item in now], size), strict=True)


def _known(file: Path, fingerprint: str) -> dict[str, tuple[Stamp, np.ndarray]]:
  """{name: (stamp, embedding)} of a saved index; empty, with a word in the log, if another model made it."""
  if not file.exists():
    return {}
  try:
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
      made_by, names, stamps, rows = (arrays[field] for field in _FIELDS)
      entries = zip(names.tolist(), map(tuple, stamps.tolist()), rows, strict=True)
      known = {str(name): ((int(stamp[0]), int(stamp[1])), row) for name, stamp, row in entries}
  except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
    raise UserError(f"{file} is no index of images ({error}): delete it, or name another --index") from error
  if str(made_by) != fingerprint:
    log.warning("%s is of other parameters, as the model was trained again: the index is made anew", file)
    return {}
  return known


def _save(file: Path, fingerprint: str, index: Index, stamps: Sequence[Stamp]) -> None:
  buffer = io.BytesIO()
  arrays = (np.array(fingerprint), np.array(index.names), np.array(stamps, np.int64), index.rows)
  fields: dict[str, Any] = dict(zip(_FIELDS, arrays, strict=True))
  np.savez(buffer, **fields)
  try:
    write_atomically(file, buffer.getvalue())
  except OSError as error:
    raise UserError(f"the index {file} cannot be written ({error.strerror}): name another --index") from error

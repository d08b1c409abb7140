"""Options of the commands `serve` and `report`, and their checks."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_serve_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of the command `serve`."""
  add = parser.add_argument
  add("folder", metavar="DIR", type=Path, help="workdir of a run, or folder of an export")
  add("--step", type=_whole(0), metavar="N", help="step of the checkpoint of a run; default: the newest one")
  _add_script(add)
  add("--images", type=Path, metavar="DIR", help="folder of images to search, subfolders included")
  add(
    "--index",
    type=Path,
    metavar="FILE",
    help="file of the images' embeddings; default: search_index.npz in the "
    "workdir, or DIR.search_index.npz beside an export",
  )
  add("--approximate", action="store_true", help="search only some of the images: faster for 100,000 and more")
  add("--host", default="127.0.0.1", help="address to listen on; default: %(default)s, this machine alone")
  add("--port", type=_port, default=8000, help="port to listen on; default: %(default)s")
  add("--max-batch", type=_batch, default=32, metavar="N", help="largest batch, a power of two; default: %(default)s")
  add("--max-queue", type=_whole(1), default=1024, metavar="N", help="items that may wait; default: %(default)s")
  add(
    "--window-ms",
    type=_number,
    default=5.0,
    metavar="MS",
    help="longest wait of an image for others that are being decoded, to fill a batch; default: %(default)s ms",
  )
  add("--max-body-mb", type=_number, default=8.0, metavar="MB", help="largest request; default: %(default)s MB")
  add(
    "--max-pixels", type=_whole(1), default=20_000_000, metavar="N", help="largest image; default: %(default)s pixels"
  )
  add("--timeout", type=_number, default=30.0, metavar="S", help="longest time of a request; default: %(default)s s")
  add("--statistics", type=Path, metavar="FILE", help="append summary statistics of embeddings to this JSON Lines file")
  add("--statistics-every", type=_number, default=600.0, metavar="S", help="time of one line; default: %(default)s s")


def add_report_options(parser: argparse.ArgumentParser) -> None:
  """Add the options of the command `report`."""
  add = parser.add_argument
  add("workdir", metavar="WORKDIR", type=Path, help="workdir of the run that was served")
  add("--step", type=_whole(0), metavar="N", help="step of the checkpoint; default: the newest one")
  add("--statistics", type=Path, metavar="FILE", required=True, help="file that `serve --statistics FILE` has written")
  add("--served", type=Path, metavar="DIR", help="export that was served instead of the run")
  _add_script(add)
  add("--split", choices=("train", "validation"), default="train", help="data to compare with; default: %(default)s")
  add("--records", type=_whole(10), default=2000, metavar="N", help="records of it, at most; default: %(default)s")
  add("--out", type=Path, metavar="FILE", help="page to write; default: WORKDIR/drift.html")


def _add_script(add: Callable[..., Any]) -> None:
  add("--script", type=Path, metavar="FILE", help="experiment script of the run, if it defines classes of its own")


def _whole(least: int) -> Callable[[str], int]:
  def parse(text: str) -> int:
    if not text.isdecimal() or int(text) < least:
      raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)

  return parse


def _batch(text: str) -> int:
  if not text.isdecimal() or int(text) < 1 or int(text) & (int(text) - 1):
    raise argparse.ArgumentTypeError(f"{text!r} is not a power of two, such as 8, 16 or 32")
  return int(text)


def _port(text: str) -> int:
  if not text.isdecimal() or int(text) > 65_535:
    raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535; 0 takes a free one")
  return int(text)


def _number(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = -1.0
  if not 0 < value < float("inf"):
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
  return value

"""Folders of splits in a directory of folders of classes."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mmjax.data.errors import DataError
from mmjax.data.split_names import HELD_OUT, TRAINING, split_of, split_within

TESTS = ("test", "testing")
log = logging.getLogger(__name__)


def split_folders(root: Path, suffixes: Sequence[str]) -> dict[str, Path] | None:
  """Find the folders of splits by their names, in any case of letters.

  A folder with such a name that has files, beside folders with other names, is a class ("train" beside "car"). Beside
  folders of splits, a folder without images is not read.

  Args:
    root: the directory.
    suffixes: extensions of images (sounds, videos), in lower case.
  Returns: {"train": folder, "validation": folder}, one of them or both. None: the folders are classes.
  Raises: DataError: some folders are splits and some are not, a split has two folders, or names only contain the name
    of a split ("seg_train").
  """
  folders = [each for each in sorted(root.iterdir()) if each.is_dir() and not each.name.startswith(".")]
  named = [each for each in folders if split_of(each.name)]
  others = [each for each in folders if each not in named]
  if not named or (others and all(_has_files(each) for each in named)):
    _check_alike(folders)
    return None
  for other in others:
    if not _has_media(other, suffixes):
      log.warning("%s is not read: it has no images beside the folders of splits", other)
      continue
    raise DataError(
      f"{other} is a folder beside {named[0].name}, which is that of a split. If it is a class, move it into "
      f"{named[0].name}; rename it to {', '.join((*TRAINING, *HELD_OUT))} if it is a split, or move it away."
    )
  return _by_split(root, named)


def _check_alike(folders: list[Path]) -> None:
  for each in folders:
    split = split_within(each.name)
    if split and not _has_files(each) and any(child.is_dir() for child in each.iterdir()):
      raise DataError(
        f"{each} has folders and no files, and its name says {split}: rename it to {split}, or move it away."
      )


def _by_split(root: Path, named: list[Path]) -> dict[str, Path]:
  found: dict[str, Path] = {}
  for split in ("train", "validation"):
    folders = [each for each in named if split_of(each.name) == split]
    tests = [each for each in folders if each.name.strip().casefold() in TESTS]
    chosen = [each for each in folders if each not in tests] or tests
    if len(chosen) > 1:
      names = " and ".join(each.name for each in chosen)
      raise DataError(f"{root} has {names}, which are both folders for {split}. Join them, or move one away.")
    if chosen:
      found[split] = chosen[0]
    for left in folders:
      if left not in chosen:
        log.warning("%s is not read: %s is the folder for validation", left, chosen[0].name)
  return found


def _has_media(folder: Path, suffixes: Sequence[str]) -> bool:
  """True if there is an image in a folder, or in its folders or theirs."""
  return any(file.suffix.lower() in suffixes for depth in ("*", "*/*", "*/*/*") for file in folder.glob(depth))


def _has_files(folder: Path) -> bool:
  return any(not each.is_dir() and not each.name.startswith(".") for each in folder.iterdir())

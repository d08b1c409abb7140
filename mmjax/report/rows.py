"""The lines of the tables of results."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmjax.evaluate.results import TABLES, table_of


@dataclass(frozen=True)
class Cell:
  """One number with those that it is compared with. Chance is None where it is not known."""

  metric: str
  value: float
  chance: float | None
  floor: float | None


@dataclass(frozen=True)
class Row:
  """One direction of one result: a line of the table.

  Attributes:
    key: the result's name.
    title: for people.
    kind: the name of the table.
    heading: the heading of the table.
    n: number of examples.
    control: True for a negative control.
    cells: its numbers.
    counts: what a retrieval counts as right.
  """

  key: str
  title: str
  kind: str
  heading: str
  n: int
  control: bool
  cells: tuple[Cell, ...]
  counts: str = ""


def rows(results: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
  """The lines of the tables: one for each direction of a retrieval, and one for the other metrics of a result."""
  for result in results:
    found: dict[str, list[str]] = {}  # names of the metrics of each modality that is retrieved; "" has the others
    for name in result["metrics"]:
      found.setdefault(name.rpartition("_retrieval_")[0], []).append(name)
    others, retrieved = found.pop("", []), list(found)
    for way, names in found.items():
      shown = next((other for other in retrieved if other != way), None)
      yield _row(result, names, f"{result['title']}, {shown} to {way}" if shown else result["title"])
    if others:
      yield _row(result, others, result["title"])


def tables(lines: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
  """(heading, lines) of every table: those of mmjax in their order, then the others as they come."""
  kinds = dict.fromkeys([*(table.name for table in TABLES), *(row.kind for row in lines)])
  for kind in kinds:
    own = [row for row in lines if row.kind == kind]
    if own:
      yield own[0].heading, own


def short(metric: str) -> str:
  """The name of a column: "R@5", "median rank", "acc1"."""
  if "_recall@" in metric:
    return "R@" + metric.rpartition("@")[2]
  return "median rank" if metric.endswith("median_rank") else metric.replace("_", " ")


def _row(result: Mapping[str, Any], names: list[str], title: str) -> Row:
  chance, floor, table = result.get("chance", {}), result.get("floor", {}), table_of(result)
  cells = tuple(Cell(name, result["metrics"][name], chance.get(name), floor.get(name)) for name in names)
  fields = result["dataset"], title, table.name, table.heading, result["n"], bool(result.get("control")), cells
  return Row(*fields, counts=result.get("counts", ""))


def counting(lines: Sequence[Row]) -> list[str]:
  """A sentence for each thing that the retrievals among the lines count as right."""
  kinds = dict.fromkeys(row.counts for row in lines if row.counts)
  if len(kinds) < 2:
    return [f"Right answers: {counts}." for counts in kinds]
  return [f"{row.title}: right answers are {row.counts}." for row in lines if row.counts]

"""The results on the terminal."""

import sys
from collections.abc import Sequence

from mmjax.evaluate.results import Result
from mmjax.report.rows import Cell, Row, counting, rows, short, tables

_NOTE = "(chance in brackets; floor: what is simpler)"


def print_table(results: Sequence[Result]) -> None:
  """A table on a terminal; elsewhere one plain line per row and metric, easy to search."""
  from rich.console import Console

  console = Console()
  lines = list(rows(results))
  if not console.is_terminal:
    sys.stdout.write("".join(f"{line}\n" for line in [*plain(lines), *counting(lines)]))
    return
  for heading, chosen in tables(lines):
    console.print(_table(f"{_escape(heading)} {_NOTE}", chosen))
    for note in counting(chosen):
      console.print(note, style="dim", markup=False, highlight=False)


def plain(lines: Sequence[Row]) -> list[str]:
  """One line per row: title, n, and every metric with chance and floor."""
  return [f"{row.title} (n={row.n}): " + ", ".join(_words(cell) for cell in row.cells) for row in lines]


def number(cell: Cell, value: float) -> str:
  """A share with three digits; a rank as it is."""
  return f"{value:g}" if cell.metric.endswith("median_rank") else f"{value:.3f}"


def beside(cell: Cell, separator: str) -> str:
  """Chance and floor, as far as they are known."""
  known = (("chance", cell.chance), ("floor", cell.floor))
  return separator.join(f"{name} {number(cell, value)}" for name, value in known if value is not None)


def _words(cell: Cell) -> str:
  compared = beside(cell, ", ")
  return f"{short(cell.metric)} {number(cell, cell.value)}" + (f" ({compared})" if compared else "")


def _table(title: str, lines: Sequence[Row]):
  from rich.table import Table

  table = Table(title=title, title_justify="left")
  table.add_column("")
  table.add_column("n", justify="right")
  columns = list(dict.fromkeys(short(cell.metric) for row in lines for cell in row.cells))
  for column in columns:
    table.add_column(column, justify="right")
  for row in lines:
    cells = {short(cell.metric): _markup(cell) for cell in row.cells}
    style = "dim" if row.control else None
    table.add_row(_escape(row.title), str(row.n), *(cells.get(column, "") for column in columns), style=style)
  return table


def _markup(cell: Cell) -> str:
  below = "" if cell.chance is None else f"({number(cell, cell.chance)})"
  if cell.floor is not None:
    below += f"\n[dim]floor {number(cell, cell.floor)}[/]"
  return f"[bold]{number(cell, cell.value)}[/] {below}"


def _escape(text: str) -> str:
  from rich.markup import escape

  return escape(text)

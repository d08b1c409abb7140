"""The page of supported weights, in Markdown, from the tables that the tests walk."""

from collections.abc import Iterable, Iterator, Sequence

from mmjax.interop.packages import PACKAGES
from mmjax.interop.supported import refused, supported

_HEAD = """# Weights that load

`python -m mmjax.interop list --markdown` writes this page. `interop.load` reads every line of it; `interop.save` and
`convert --to` write those that name a format, which then go back bit for bit."""


def markdown() -> str:
  """The page: a table for each library, the packages of PyPI, and the classes that are refused."""
  lines: dict[str, list[Sequence[str]]] = {}
  for library, *cells in supported():
    lines.setdefault(library, []).append(cells)
  parts = [_HEAD]
  for library, rows in lines.items():
    parts.append(_section(library, ("architecture", "since", "written by `--to`"), rows))
  packages = [(name, package.about, f"`{package.pip}`") for name, package in PACKAGES.items()]
  parts.append(_section("packages of PyPI", ("`package NAME`", "content", "package"), packages))
  parts.append(_section("refused by name", ("`model_type`", "class, and why"), refused()))
  return "\n\n".join(parts) + "\n"


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  return "\n".join((f"## {title}", "", *_table(columns, rows)))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
  yield f"| {' | '.join(columns)} |"
  yield "|" + "---|" * len(columns)
  for row in rows:
    yield f"| {' | '.join(row)} |"

"""Results of a study: a table and a plot of all its variants, with chance and spread."""

from __future__ import annotations

import base64
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jax
from rich.console import Console

from mmjax.errors import UserError
from mmjax.evaluate.results import flatten
from mmjax.files import write_atomically
from mmjax.report.page import Section, page
from mmjax.report.read import read_json

if TYPE_CHECKING:  # mmjax.study uses this file
  from mmjax.study import Member, Study, Variant

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito: colour-blind-safe


@dataclass(frozen=True)
class Line:
  """One variant: the values of its seeds by heading (none where it is not measured so), and what all of them share."""

  variant: Variant
  values: Mapping[str, tuple[float, ...]]
  facts: Mapping[str, str]

  def words(self, heading: str) -> str:
    values = self.values[heading]
    if not values:
      return "–"
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def write_comparison(study: Study, runs: Sequence[Member], workdir: Path) -> None:
  """Writes comparison.json, .md, .png and .html to the study's workdir, and prints the table.

  Raises: UserError where no run has been measured, or a metric is among no variant's results; it names both.
  """
  if jax.process_index() != 0:
    return
  workdir = workdir.expanduser()
  lines, chance = _lines(study, runs)
  table = _markdown(study, lines, chance)
  records = [{"variant": line.variant.name, **line.facts, **line.values} for line in lines]
  write_atomically(workdir / "comparison.json", json.dumps(records, indent=2) + "\n")
  write_atomically(workdir / "comparison.md", table)
  _plot(study, lines, chance, workdir / "comparison.png")
  pictures = {heading: _embedded(draw(runs)) for heading, draw in study.pictures.items()}
  sections = {**pictures, **_reports(runs, workdir)}
  write_atomically(workdir / "comparison.html", _html(study, lines, chance, workdir, sections))
  console = Console()
  console.print(_rich(study, lines, chance) if console.is_terminal else table, highlight=False, soft_wrap=True)
  console.print(f"comparison: {workdir / 'comparison.html'}", highlight=False, soft_wrap=True)


def _lines(study: Study, runs: Sequence[Member]) -> tuple[list[Line], dict[str, float]]:
  """A line for every variant that has been measured, and the metrics' chance levels."""
  lines: list[Line] = []
  chance: dict[str, float] = {}
  known: dict[str, float] = {}
  for variant in study.variants:
    mine = [run.experiment for run in runs if run.variant is variant]
    measured = [(e, read_json(e.run.workdir.expanduser() / "results.json")) for e in mine]
    measured = [(e, results) for e, results in measured if results]
    if not measured:
      continue
    numbers = [flatten(results) for _, results in measured]
    known |= numbers[0]
    values = {
      heading: tuple(found[name] for found in numbers if name in found) for heading, name in study.metrics.items()
    }
    lines.append(Line(variant, values, _facts([e for e, _ in measured])))
    chance |= _chances(study, measured[0][1])
  if not lines:
    raise UserError(
      f"no variant has been measured yet in {runs[0].experiment.run.workdir.parent.parent}; run train first"
    )
  for heading, name in study.metrics.items():
    if not any(line.values[heading] for line in lines):
      raise UserError(f"the study's metric {name!r} is not among {', '.join(known)}")
  return lines, chance


def _chances(study: Study, results: Sequence[Any]) -> dict[str, float]:
  named = flatten([dict(result, metrics=result["chance"]) for result in results])  # type: ignore[misc]
  return {heading: named[name] for heading, name in study.metrics.items() if name in named}


def _facts(experiments: Sequence[Any]) -> dict[str, str]:
  run = experiments[0].run
  return {
    "batch": f"{run.batch_size:,}",
    "steps": f"{run.steps:,}",
    "microbatches": str(experiments[0].parallel.microbatches),
    "learning rate": f"{experiments[0].optimizer.learning_rate:.2g}",
    "seeds": str(len(experiments)),
  }


def _cells(study: Study, lines: Sequence[Line], chance: Mapping[str, float]) -> list[list[str]]:
  """Heading, one row per variant, and chance."""
  facts = list(lines[0].facts)
  head = ["variant", *facts, *study.metrics]
  body = [[line.variant.name, *line.facts.values(), *map(line.words, study.metrics)] for line in lines]
  guessed = [f"{chance[heading]:.3f}" if heading in chance else "–" for heading in study.metrics]
  return [head, *body, ["chance", *[""] * len(facts), *guessed]]


def _markdown(study: Study, lines: Sequence[Line], chance: Mapping[str, float]) -> str:
  head, *body = _cells(study, lines, chance)
  rule = ["---"] + ["---:"] * (len(head) - 1)
  return "".join("| " + " | ".join(row) + " |\n" for row in (head, rule, *body))


def _rich(study: Study, lines: Sequence[Line], chance: Mapping[str, float]) -> Any:
  from rich.table import Table

  head, *body = _cells(study, lines, chance)
  table = Table()
  for place, name in enumerate(head):
    table.add_column(name, justify="left" if place == 0 else "right")
  for row in body:
    table.add_row(*row, style="dim" if row is body[-1] else None)
  return table


def _html(
  study: Study, lines: Sequence[Line], chance: Mapping[str, float], workdir: Path, sections: Mapping[str, str]
) -> str:
  head, *body = _cells(study, lines, chance)
  cells = lambda row, tag: "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
  rows = "".join(f"<tr{' class=control' if row is body[-1] else ''}>{cells(row, 'td')}</tr>" for row in body)
  table = f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead><tbody>{rows}</tbody></table></div>'
  plot = _image((workdir / "comparison.png").read_bytes(), "the table as a plot")
  more = [Section(f"section{i}", heading, content) for i, (heading, content) in enumerate(sections.items())]
  lead = '<p class="note">The same data and evaluation for every variant; mean and standard deviation over seeds.</p>'
  own = [Section("table", "Table", table), Section("plot", "Plot", plot)]
  return page(f"mmjax study: {workdir.resolve().name}", lead, [*own, *more])


def _reports(runs: Sequence[Member], workdir: Path) -> dict[str, str]:
  """{heading: links to the reports of those runs that have one}, relative to the study's workdir."""
  links = []
  for run in runs:
    path = run.experiment.run.workdir.expanduser() / "report.html"
    if path.exists():
      name = f"{run.variant.name}, seed {run.experiment.run.seed}"
      links.append(f'<li><a href="{escape(quote(path.relative_to(workdir).as_posix()))}">{escape(name)}</a></li>')
  return {"Runs": f"<ul>{''.join(links)}</ul>"} if links else {}


def _image(png: bytes, alternative: str) -> str:
  data = base64.b64encode(png).decode()
  return f'<img style="width:100%;height:auto;padding:0" alt="{alternative}" src="data:image/png;base64,{data}">'


def _embedded(figure: Any) -> str:
  """A matplotlib figure as HTML."""
  png = io.BytesIO()
  figure.savefig(png, format="png", dpi=110)
  return _image(png.getvalue(), "what the heading says")


def _plot(study: Study, lines: Sequence[Line], chance: Mapping[str, float], path: Path) -> None:
  from matplotlib.figure import Figure

  width = 4.2 if study.axis else max(4.2, 0.5 * len(lines))
  figure = Figure(figsize=(width * len(study.metrics), 3.6), layout="constrained")
  for axes, heading in zip(figure.subplots(1, len(study.metrics), squeeze=False)[0], study.metrics, strict=True):
    (_bars if study.axis is None else _curves)(axes, study, lines, heading)
    if heading in chance:
      axes.axhline(chance[heading], color="#777777", linestyle=":", linewidth=1.2, label="chance")
    axes.set_title(heading, fontsize=10)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
  figure.axes[0].legend(framealpha=0.9, edgecolor="none", fontsize=9, **_beside(study))
  partial = path.with_suffix(".partial.png")
  figure.savefig(partial, dpi=130)
  partial.replace(path)


def _beside(study: Study) -> dict[str, Any]:
  """Arguments of the legend: beside the axes if bars with series fill them."""
  named = study.axis is None and any(variant.series for variant in study.variants)
  return dict(loc="upper left", bbox_to_anchor=(1.0, 1.0)) if named else {}


def _bars(axes: Any, study: Study, lines: Sequence[Line], heading: str) -> None:
  series = list(dict.fromkeys(line.variant.series for line in lines))
  for place, line in enumerate(lines):
    values, group = line.values[heading], line.variant.series
    if not values:
      continue
    color = _COLORS[(series.index(group) if any(series) else place) % len(_COLORS)]
    first = group and all(other.variant.series != group for other in lines[:place])
    axes.bar(place, statistics.mean(values), color=color, width=0.6, zorder=2, label=group if first else None)
    axes.plot([place] * len(values), values, "o", color="#222222", markersize=3, zorder=3)
  tilt = 20 if len(lines) < 8 else 40
  axes.set_xticks(range(len(lines)), [line.variant.name for line in lines], rotation=tilt, ha="right", fontsize=9)


def _curves(axes: Any, study: Study, lines: Sequence[Line], heading: str) -> None:
  for color, series in zip(_COLORS, dict.fromkeys(line.variant.series for line in lines), strict=False):
    mine = [line for line in lines if line.variant.series == series and line.values[heading]]
    x = [line.variant.x for line in mine]
    axes.plot(
      x, [statistics.mean(line.values[heading]) for line in mine], "o-", color=color, label=series, markersize=4
    )
    for line in mine:
      axes.plot([line.variant.x] * len(line.values[heading]), line.values[heading], ".", color=color, alpha=0.5)
  axes.set_xscale("log", base=2)
  axes.set_xlabel(study.axis)

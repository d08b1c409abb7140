"""The report: one self-contained HTML file about a run, finished or interrupted."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from mmjax.errors import UserError
from mmjax.evaluate.evaluator import Shared, applying
from mmjax.evaluate.results import RETRIEVAL, ZERO_SHOT, lower_is_better
from mmjax.files import write_atomically
from mmjax.report import gallery
from mmjax.report.figures import Curve, column, line_chart, training_charts
from mmjax.report.page import Section, card, missing, page
from mmjax.report.read import read_json
from mmjax.report.rows import Cell, Row, counting, rows, short, tables
from mmjax.report.terminal import beside, number

if TYPE_CHECKING:
  from mmjax.run import Run

History = dict[str, list[tuple[int, float]]]
"""(step, value) by metric, from the evaluations during training."""
_OTHER_CURVES = 3  # metrics that are drawn if there is no recall@1


def write_report(workdir: str | Path, run: Run | None = None) -> Path:
  """Writes report.html from config.json, metrics.jsonl and results.json; what is missing is said so.

  Args:
    workdir: the folder of a run.
    run: embeds the images that are shown; without it the image sections say that there is no model.
  Returns: the path of report.html.
  Raises:
    UserError: a file of the workdir is not what it should be; the message names it (and the line).
  """
  workdir = Path(workdir).expanduser()
  if not workdir.is_dir():
    raise UserError(f"{workdir} is not a directory: give the workdir of a run")
  config = read_json(workdir / "config.json") or {}
  lines, history = _metrics(workdir / "metrics.jsonl")
  results = read_json(workdir / "results.json") or []
  sections = [
    Section("results", "Results", _results(results, history)),
    Section("training", "Training", _training(lines, history)),
    *_of_evaluators(run),
    Section("configuration", "Configuration", _configuration(config)),
  ]
  title = "/".join(workdir.resolve().parts[-2:])  # a study's runs are VARIANT/seedN
  html = page(f"mmjax run: {title}", _lead(config, lines, results, run), sections)
  path = workdir / "report.html"
  if jax.process_index() == 0:  # the others have embedded their share
    write_atomically(path, html)
  return path


def check_report(run: Run) -> None:
  """Check that results and report of a run can be drawn and written. Raises UserError, which names what is wrong."""
  workdir = run.workdir.expanduser()
  for path in (workdir / "results.json", workdir / "report.html"):
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
      raise UserError(f"{path} cannot be written: delete it, or choose another --run.workdir")
  try:
    line_chart([("loss", [0, 1], [1.0, 0.5])], ylabel="loss")
  except (ImportError, OSError, RuntimeError, ValueError) as error:
    raise UserError(f"the figures of the report cannot be drawn by matplotlib: {error}. Install it again") from error


def _metrics(path: Path) -> tuple[list[dict[str, Any]], History]:
  """The training lines, and the evaluations; a last line that a crash cut short is dropped."""
  lines: list[dict[str, Any]] = []
  history: History = {}
  text = path.read_text(encoding="utf-8") if path.exists() else ""
  for place, line in enumerate(text.splitlines(keepends=True), 1):
    if not line.endswith("\n"):
      break
    try:
      record = json.loads(line)
      step = int(record["step"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
      raise UserError(f"{path}, line {place}: not a line of metrics ({error!r}): remove it") from error
    for name, value in record.get("eval", {}).items():
      history.setdefault(name, []).append((step, value))
    if "eval" not in record:
      lines.append(record)
  return lines, history


def _seconds(lines: Sequence[Mapping]) -> float:
  """Seconds of training, of all processes of a run that was stopped and resumed. Each begins to count at 0."""
  counts = [line["seconds"] for line in lines if "seconds" in line]
  return counts[-1] + sum(before for before, after in itertools.pairwise(counts) if after < before)


def _lead(config: Any, lines: Sequence[Mapping], results: Sequence[Any], run: Run | None) -> str:
  """A sentence and the numbers one looks for first."""
  planned = config.get("experiment", {}).get("run", {}).get("steps")
  cards = []
  if lines:
    last = lines[-1]
    cards.append(card(f"{last['step']:,}", "steps", f"of {planned:,} planned" if planned else ""))
    if "loss" in last:
      chance = f"chance {last['chance']:.2f}" if "chance" in last else ""
      cards.append(card(f"{last['loss']:.3f}", "last loss", chance))
    speeds = sorted(column(lines, "examples_per_second")[1])
    if speeds:
      cards.append(card(f"{speeds[len(speeds) // 2]:,.0f}", "examples / s", "median"))
    if "seconds" in last:
      cards.append(card(f"{_seconds(lines) / 60:.1f}", "minutes"))
  for row in _first_rows(results):
    first = row.cells[0]
    cards.append(card(number(first, first.value), f"{short(first.metric)}, {row.title}", beside(first, " · ")))
  step = f"Model of step {run.step:,}. " if run is not None else ""
  finished = bool(lines) and bool(planned) and lines[-1]["step"] >= planned
  state = "" if finished else "This run has not finished. "
  return (
    f'<p class="note">{state}{step}Everything here is in this one file.</p><div class="cards">{"".join(cards)}</div>'
  )


def _first_rows(results: Sequence[Any]) -> list[Row]:
  """One way of the first two retrievals, and the first line of every other table but zero-shot classification."""
  lines = [row for row in rows(results) if not row.control]
  first = [chosen[0] for _, chosen in tables(lines) if chosen[0].kind not in (RETRIEVAL.name, ZERO_SHOT.name)]
  return [row for row in lines if row.kind == RETRIEVAL.name][:4:2] + first


def _results(results: Sequence[Any], history: History) -> str:
  if not results:
    return missing("There is no results.json in this workdir: the run has not been evaluated yet.")
  drawn = "".join(
    f"<h3>{escape(heading)}</h3>{_table(lines, history)}" for heading, lines in tables(list(rows(results)))
  )
  notes = "".join(f'<p class="note">{escape(note)}</p>' for note in _notes(results))
  recall = any("_recall@" in metric for result in results for metric in result["metrics"])
  meaning = "The mark on a bar is chance."
  if recall:
    meaning = (
      f"R@K: the share of queries with a right answer among the first K. {meaning} Ties count against the model."
    )
  return f'<p class="note">{meaning}</p>{drawn}{notes}{"".join(map(_by_class, results))}'


def _notes(results: Sequence[Any]) -> list[str]:
  """Explanations of floors and priors, and a list of missing metrics."""
  notes = counting(list(rows(results)))
  notes += [f"Floor: {result['floor_is']}." for result in results if "floor_is" in result]
  for result in results:
    if "priors" in result:
      prior, question = result["priors"]["prior"], result["priors"]["question_prior"]
      notes.append(
        f"{result['title']}: without a look, the commonest training answer scores {prior:.3f}, that of each question "
        f"{question:.3f} (chance in the table)."
      )
    notes += [f"{result['title']}: no {name}, since {why}." for name, why in result.get("missing", {}).items()]
  return list(dict.fromkeys(notes))


def _by_class(result: Mapping[str, Any]) -> str:
  """Precision, recall and F1 of every class, folded up."""
  report = {name: line for name, line in result.get("report", {}).items() if isinstance(line, Mapping)}
  if not report:
    return ""
  names = ("precision", "recall", "f1-score", "support")
  head = "".join(f"<th>{name}</th>" for name in ("", *names))
  body = "".join(
    f"<tr><td>{escape(name)}</td>"
    + "".join(f"<td>{line[n]:.3f}</td>" for n in names[:3])
    + f"<td>{line['support']:g}</td></tr>"
    for name, line in report.items()
  )
  table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
  return f'<details><summary>{escape(result["title"])}, by class</summary><div class="scroll">{table}</div></details>'


def _table(lines: Sequence[Row], history: History) -> str:
  columns = list(dict.fromkeys(short(cell.metric) for row in lines for cell in row.cells))
  head = "".join(f"<th>{escape(name)}</th>" for name in ("", "n", *columns))
  body = []
  for row in lines:
    cells = {short(cell.metric): _cell(cell) for cell in row.cells}
    first = row.cells[0]
    cells[short(first.metric)] += _best(first, history.get(f"{row.key}/{first.metric}", []))
    kind = ' class="control"' if row.control else ""
    body.append(
      f"<tr{kind}><td>{escape(row.title)}</td><td>{row.n:,}</td>"
      + "".join(f"<td>{cells.get(name, '')}</td>" for name in columns)
      + "</tr>"
    )
  return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _cell(cell: Cell) -> str:
  """The value, a bar with a mark at chance, and what it is compared with."""
  bar = ""
  if not lower_is_better(cell.metric) and not cell.metric.endswith("cider"):  # these are no shares
    mark = "" if cell.chance is None else f'<i style="left:{100 * min(cell.chance, 0.98):.1f}%"></i>'
    bar = f'<div class="bar"><span style="width:{100 * min(cell.value, 1):.1f}%"></span>{mark}</div>'
  return f"<b>{number(cell, cell.value)}</b>{bar}<small>{beside(cell, ' · ')}</small>"


def _best(cell: Cell, earlier: Sequence[tuple[int, float]]) -> str:
  """The best of the evaluations during training, or a star where none was better."""
  if not earlier:
    return ""
  sign = -1 if lower_is_better(cell.metric) else 1
  step, value = max(earlier, key=lambda entry: sign * entry[1])
  if sign * cell.value >= sign * value:
    return '<span class="best">★ best so far</span>'
  return f"<small>best {number(cell, value)} at step {step:,}</small>"


def _training(lines: Sequence[Mapping], history: History) -> str:
  if not lines:
    return missing("There is no metrics.jsonl with numbers in this workdir: training has not begun.")
  charts = training_charts(lines)
  recalls = [_curve(name, points) for name, points in history.items() if name.endswith("recall@1")]
  if recalls:
    wanted = recalls[-1:] + recalls[:2]  # the mean of all comes last
    charts.append(("Recall@1 during training", line_chart(wanted, ylabel="recall@1", zero=True)))
  for name, points in list(history.items())[:_OTHER_CURVES] if not recalls else ():
    metric = name.rpartition("/")[2]
    charts.append((f"{escape(metric)} during training", line_chart([_curve(name, points)], ylabel=metric)))
  return '<div class="charts">' + "".join(f"<div><h3>{h}</h3>{svg}</div>" for h, svg in charts) + "</div>"


def _curve(name: str, points: Sequence[tuple[int, float]]) -> Curve:
  title = name.replace("/", ", ").replace("image_retrieval_", "")
  return title, [step for step, _ in points], [value for _, value in points]


def _of_evaluators(run: Run | None) -> list[Section]:
  """The sections of the evaluators that apply to a run."""
  if run is None:
    reason = missing("There is no model to embed images with: the workdir holds no checkpoint yet.")
    return [Section(anchor, heading, reason) for anchor, heading in gallery.HEADINGS.items()]
  sections = []
  for stream, each in run.by_stream().items():
    shared = Shared()
    found = [section for evaluator in applying(each.experiment) for section in evaluator.sections(each, shared)]
    sections += [_of_stream(section, stream) for section in found]
  return sections


def _of_stream(section: Section, stream: str) -> Section:
  """The section with the name of its stream in its anchor and heading."""
  if not stream:
    return section
  return section._replace(anchor=f"{stream}-{section.anchor}", heading=f"{section.heading}, stream {stream}")


def _configuration(config: Mapping[str, Any]) -> str:
  if not config:
    return missing("There is no config.json in this workdir.")
  parts = dict(config.get("experiment", {}))
  parts["software"] = {key: value for key, value in config.items() if key != "experiment"}
  return "".join(
    f"<details><summary>{escape(name)}</summary><dl>{''.join(_entries(value, ''))}</dl></details>"
    for name, value in parts.items()
  )


def _entries(value: Any, prefix: str) -> list[str]:
  """One line per field; nested records become dotted names."""
  if isinstance(value, Mapping):
    items = [(f"{prefix}.{key}" if prefix else str(key), inner) for key, inner in value.items()]
    return [line for name, inner in items for line in _entries(inner, name)]
  if isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
    return [line for place, inner in enumerate(value) for line in _entries(inner, f"{prefix}[{place}]")]
  shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
  return [f"<dt>{escape(prefix)}</dt><dd>{escape(shown)}</dd>"]

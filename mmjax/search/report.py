"""The comparison of a search: a table of the trials, the best one's options, and plots."""

import base64
import io
import json
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmjax.files import write_atomically
from mmjax.report.page import Section, page
from mmjax.search.halving import Trial
from mmjax.search.space import Choice, Space


def write_comparison(trials: Sequence[Trial], space: Space, metric: str, workdir: Path, *, maximize: bool) -> None:
  """Write trials.json, search.png and search.html to the search's workdir, and print the best trials.

  Args:
    trials: those that have been measured.
    space: the ranges.
    metric: name of the metric.
    workdir: folder of the search.
    maximize: True if a higher value is better.
  """
  ordered = best_first(trials, maximize=maximize)
  records = [{**vars(trial), "values": dict(trial.values), "scores": dict(trial.scores)} for trial in ordered]
  write_atomically(workdir / "trials.json", json.dumps(records, indent=2) + "\n")
  png = _drawn(ordered, space, metric, maximize=maximize)
  write_atomically(workdir / "search.png", png)
  write_atomically(workdir / "search.html", _html(ordered, space, metric, workdir, png))
  console = Console()
  head, *body = _cells(ordered, space, metric)
  table = Table(*head, title=f"the best of {len(ordered)} trials")
  for row in body[:10]:
    table.add_row(*row)
  console.print(table)
  if ordered[0].score is not None:
    console.print(f"options of the best: {options(ordered[0], space)}", highlight=False, soft_wrap=True)
  console.print(f"comparison: {workdir / 'search.html'}", highlight=False, soft_wrap=True)


def best_first(trials: Sequence[Trial], *, maximize: bool) -> list[Trial]:
  """Trials by the last rung that they have reached, then by their score there. Failed ones are last."""
  sign = -1 if maximize else 1

  def key(trial: Trial) -> tuple[bool, int, float, int]:
    failed = trial.score is None
    return failed, -trial.steps, 0.0 if failed else sign * trial.score, trial.number  # type: ignore[operator]

  return sorted(trials, key=key)


def options(trial: Trial, space: Space) -> str:
  """The command line options that set the values of a trial. A named choice stays a name, in angle brackets."""
  words = []
  for path, value in trial.values.items():
    one = space[path]
    named = isinstance(one, Choice) and one.value(value) is not value
    words.append(f"--{path.replace('_', '-')} {f'<{value}>' if named else shlex.quote(f'{value}')}")
  return " ".join(words)


def _cells(trials: Sequence[Trial], space: Space, metric: str) -> list[list[str]]:
  """Heading, and one row per trial."""
  names = _names(space)
  rows = [
    [str(trial.number), f"{trial.steps:,}", "–" if trial.score is None else f"{trial.score:.4g}"]
    + [_number(trial.values[path]) for path in names]
    for trial in trials
  ]
  return [["trial", "steps", metric, *names.values()], *rows]


def _names(space: Space) -> dict[str, str]:
  """{path: its shortest end that no other path has}."""

  def shortest(path: str) -> str:
    parts = path.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next(end for end in ends if sum(f".{other}".endswith(f".{end}") for other in space) == 1)

  return {path: shortest(path).replace("_", " ") for path in space}


def _number(value: Any) -> str:
  return f"{value:.3g}" if isinstance(value, float) else str(value)


def _html(trials: Sequence[Trial], space: Space, metric: str, workdir: Path, png: bytes) -> str:
  head, *body = _cells(trials, space, metric)
  cells = lambda row, tag: "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
  notes = {n: trial.note for n, trial in enumerate(trials) if trial.note}
  rows = "".join(
    f"<tr title={json.dumps(escape(notes[n]))}>{cells(row, 'td')}</tr>"
    if n in notes
    else f"<tr>{cells(row, 'td')}</tr>"
    for n, row in enumerate(body)
  )
  table = f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead><tbody>{rows}</tbody></table></div>'
  data = base64.b64encode(png).decode()
  image = f'<img style="width:100%;height:auto;padding:0" alt="the trials" src="data:image/png;base64,{data}">'
  spent = sum(trial.steps for trial in trials)
  lead = (
    f'<p class="note">{len(trials)} trials, {spent:,} steps in all. Trials that stopped early have fewer steps.</p>'
  )
  best = f"<p><code>{escape(options(trials[0], space))}</code></p>" if trials[0].score is not None else ""
  sections = [Section("best", "Best trial", best), Section("plot", "Trials", image), Section("table", "Table", table)]
  return page(f"mmjax search: {workdir.resolve().name}", lead, [one for one in sections if one.html])


def _drawn(trials: Sequence[Trial], space: Space, metric: str, *, maximize: bool) -> bytes:
  """Parallel coordinates, and the score of every trial at every rung, as PNG."""
  from matplotlib import colormaps
  from matplotlib.colors import Normalize
  from matplotlib.figure import Figure

  scores = [trial.score for trial in trials if trial.score is not None]
  low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
  scale = Normalize(low, high if high > low else low + 1.0)
  colors, last = colormaps["viridis" if maximize else "viridis_r"], max(trial.steps for trial in trials)
  figure = Figure(figsize=(max(7.0, 2.2 * (len(space) + 1)), 6.6), layout="constrained")
  upper, lower = figure.subplots(2, 1, height_ratios=(3, 2))
  names = _names(space)
  for trial in reversed(trials):  # the best is drawn last, on top
    whole = trial.steps == last
    style: dict[str, Any] = dict(linewidth=1.6 if whole else 0.8, alpha=0.95 if whole else 0.45)
    color = "#999999" if trial.score is None else colors(scale(trial.score))
    heights = [space[path].place(trial.values[path]) for path in space]
    if trial.score is not None:
      heights.append(float(scale(trial.score)))
    upper.plot(range(len(heights)), heights, color=color, **style)
    known = [(step, score) for step, score in sorted(trial.scores.items()) if score is not None]
    lower.plot([step for step, _ in known], [score for _, score in known], "o-", color=color, markersize=3, **style)
  for place, path in enumerate(space):
    one = space[path]
    ticks = one.names if isinstance(one, Choice) else (one.low, one.high)
    for tick in ticks:
      upper.annotate(
        _number(tick), (place, one.place(tick)), fontsize=8, ha="left", xytext=(3, 2), textcoords="offset points"
      )
    upper.axvline(place, color="#777777", linewidth=0.8)
  for tick in (low, high):
    upper.annotate(
      f"{tick:.3g}", (len(space), float(scale(tick))), fontsize=8, xytext=(3, 2), textcoords="offset points"
    )
  upper.axvline(len(space), color="#777777", linewidth=0.8)
  upper.set_xticks(range(len(space) + 1), [*names.values(), metric], fontsize=9)
  upper.set_yticks([])
  upper.set_xlim(-0.1, len(space) + 0.25)
  upper.set_title("one line per trial; thick lines took all steps", fontsize=10)
  lower.set_xlabel("steps")
  lower.set_ylabel(metric, fontsize=9)
  lower.grid(alpha=0.25)
  png = io.BytesIO()
  figure.savefig(png, format="png", dpi=120)
  return png.getvalue()

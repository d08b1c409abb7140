"""Charts and matrices as inline SVG that follows the page's light or dark colours."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float

# Drawn in these, then replaced by the page's CSS variables; Okabe and Ito's colour-blind-safe palette there.
_COLORS = {
  "#aa0001": "var(--series-1)",
  "#aa0002": "var(--series-2)",
  "#aa0003": "var(--series-3)",
  "#aa0008": "var(--muted)",
  "#aa0009": "var(--text)",
}
SERIES = ("#aa0001", "#aa0002", "#aa0003")
_MUTED, _TEXT = "#aa0008", "#aa0009"

Curve = tuple[str, Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]
"""(label, x, y)."""


def line_chart(
  curves: Sequence[Curve],
  *,
  ylabel: str,
  reference: Curve | None = None,
  smooth: bool = False,
  log: bool = False,
  zero: bool = False,
  xlabel: str = "step",
) -> str:
  """A line chart as an `<svg>` element.

  Args:
    curves: what is drawn; with several, a legend names them.
    ylabel: what the y axis shows, with its unit.
    reference: a dashed line to compare with, such as chance.
    smooth: draw the values faintly and a moving average on top.
    log: a logarithmic y axis.
    zero: let the y axis begin at 0.
    xlabel: label of the x axis, with its unit.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 2.9), layout="constrained")
  figure.patch.set_alpha(0)  # the page's own colour shows through, light or dark
  axes = figure.add_subplot()
  _plot(axes, curves, smooth)
  if reference is not None:
    label, x, y = reference
    axes.plot(x, y, color=_MUTED, linestyle="--", linewidth=1.4, label=label)
  if log:
    axes.set_yscale("log")
  if zero:
    axes.set_ylim(bottom=0)
  _dress(axes, xlabel, ylabel)
  if len(curves) > 1 or reference is not None:
    axes.legend(frameon=False, labelcolor=_TEXT, fontsize=9)
  return _svg(figure, ylabel)


def scatter_chart(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], *, xlabel: str, ylabel: str) -> str:
  """A chart of points, and the line on which y equals x, as an `<svg>` element.

  Args:
    x: the true values, or other numbers.
    y: the predicted values.
    xlabel: the label of the x axis, with its unit.
    ylabel: the label of the y axis, with its unit.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(4.6, 4.2), layout="constrained")
  figure.patch.set_alpha(0)
  axes = figure.add_subplot()
  axes.scatter(x, y, s=14, color=SERIES[0], alpha=0.6, linewidths=0)
  axes.axline((float(np.mean(x)), float(np.mean(x))), slope=1, color=_MUTED, linestyle="--", linewidth=1.4)
  _dress(axes, xlabel, ylabel)
  return f'<div class="charts">{_svg(figure, ylabel)}</div>'


def _plot(axes: Any, curves: Sequence[Curve], smooth: bool) -> None:
  for color, (label, x, y) in zip(SERIES, curves):
    if smooth and len(y) > 10:
      axes.plot(x, y, color=color, linewidth=0.8, alpha=0.35)
      y = moving_average(y, max(3, len(y) // 30))
    axes.plot(x, y, color=color, linewidth=1.8, label=label, marker="o" if len(y) < 12 else None, markersize=4)


def _dress(axes: Any, xlabel: str, ylabel: str) -> None:
  axes.set_xlabel(xlabel, color=_TEXT)
  axes.set_ylabel(ylabel, color=_TEXT)
  axes.tick_params(which="both", colors=_MUTED, labelcolor=_TEXT, labelsize=9)
  axes.grid(color=_MUTED, alpha=0.25, linewidth=0.6)
  axes.patch.set_alpha(0)
  for side, spine in axes.spines.items():
    spine.set_visible(side in ("left", "bottom"))
    spine.set_color(_MUTED)


def moving_average(values: Sequence[float] | np.ndarray, width: int) -> Float[np.ndarray, " n"]:
  """The mean over a centred window, which shrinks at the ends."""
  sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
  place = np.arange(len(values))
  low, high = np.maximum(place - width // 2, 0), np.minimum(place + width // 2 + 1, len(values))
  return (sums[high] - sums[low]) / (high - low)


def _svg(figure: Any, name: str) -> str:
  import matplotlib
  from matplotlib.backends.backend_svg import FigureCanvasSVG

  buffer = io.StringIO()
  # Ids are hashed with the name, so that they differ between the charts of a page and not between runs.
  with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
    metadata: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
  drawing = buffer.getvalue()
  drawing = drawing[drawing.index("<svg") :]
  for drawn, variable in _COLORS.items():
    drawing = drawing.replace(drawn, variable)
  return drawing.replace("<svg", f'<svg role="img" aria-label="{escape(name, quote=True)}"', 1)


def heat_map(matrix: Float[np.ndarray, "n m"], pictures: Sequence[str], texts: Sequence[str]) -> str:
  """Cosines of images (rows) and texts (columns) as an `<svg>`; the diagonal, framed, is what belongs together.

  Args:
    pictures: data URIs.
    texts: one per column.
  """
  cell, left, top = 26, 40, 150
  rows, columns = matrix.shape
  low, high = float(matrix.min()), float(matrix.max())
  width, height = left + columns * cell + 90, top + rows * cell + 8
  parts = [f'<svg class="heat" viewBox="0 0 {width} {height}" role="img" aria-label="similarity matrix">']
  for column, text in enumerate(texts):
    x = left + column * cell + cell / 2
    parts.append(f'<text x="{x}" y="{top - 8}" transform="rotate(-50 {x} {top - 8})">{escape(_cut(text, 24))}</text>')
  for row, picture in enumerate(pictures):
    y = top + row * cell
    parts.append(f'<rect x="6" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" rx="3" fill="#fff"/>')
    parts.append(f'<image x="7" y="{y + 2}" width="{cell - 4}" height="{cell - 4}" href="{picture}"/>')
    for column in range(columns):
      value = float(matrix[row, column])
      shade = sequential((value - low) / max(high - low, 1e-9))
      frame = ' class="truth"' if row == column else ""
      parts.append(
        f'<rect{frame} x="{left + column * cell + 1}" y="{y + 1}" width="{cell - 2}" height="{cell - 2}" '
        f'rx="3" fill="{shade}"><title>{escape(texts[column])}: {value:.2f}</title></rect>'
      )
  return "".join([*parts, "</svg>"])


def color_scale(low: float, high: float) -> str:
  """The legend of a heat map."""
  stops = ", ".join(sequential(step / 8) for step in range(9))
  bar = f'<span class="scale" style="background: linear-gradient(90deg, {stops})"></span>'
  return f'<p class="legend">cosine {low:.2f} {bar} {high:.2f}</p>'


_CIVIDIS = ((0, 32, 77), (62, 75, 108), (124, 123, 120), (188, 175, 111), (255, 234, 70))


def sequential(share: float) -> str:
  """A colour between dark blue (0) and yellow (1), the same order for every kind of sight (cividis)."""
  share = min(max(share, 0.0), 1.0) * (len(_CIVIDIS) - 1)
  index = min(int(share), len(_CIVIDIS) - 2)
  pair = np.array(_CIVIDIS[index : index + 2], float)
  color = pair[0] + (pair[1] - pair[0]) * (share - index)
  return "#" + "".join(f"{round(part):02x}" for part in color.tolist())


def training_charts(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
  """(heading, svg) of every chart that the lines of metrics.jsonl have numbers for."""
  charts = []
  for heading, key, label, options in _CHARTS:
    steps, values = column(lines, key)
    if values:
      extra = dict(options)
      if key == "loss":
        chance = column(lines, "chance")
        extra["reference"] = ("chance", *chance) if chance[1] else None
      if key == "logit_scale":
        values = [1 / max(value, 1e-9) for value in values]
      if key == "input_wait":
        values = [1000 * value for value in values]
      charts.append((heading, line_chart([(heading.lower(), steps, values)], ylabel=label, **extra)))
  return charts


_CHARTS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
  ("Loss", "loss", "loss", {"smooth": True}),
  ("Learning rate", "learning_rate", "learning rate", {"zero": True}),
  ("Throughput", "examples_per_second", "examples / s", {"zero": True}),
  ("Input wait", "input_wait", "waiting for input (ms / step)", {"zero": True}),
  ("Gradient norm", "grad_norm", "gradient norm", {"smooth": True, "log": True}),
  ("Temperature", "logit_scale", "temperature (1 / logit scale)", {}),
)


def column(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
  """(steps, values) of the lines that hold a number there."""
  found = [(line["step"], line[key]) for line in lines if isinstance(line.get(key), (int, float))]
  return [float(step) for step, _ in found], [float(value) for _, value in found]


def _cut(text: str, length: int) -> str:
  return text if len(text) <= length else text[: length - 1] + "…"

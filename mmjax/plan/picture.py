"""Figure of a Plan: memory by content, and the step in a roofline plot."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmjax.plan.hardware import GIB, Hardware
from mmjax.plan.result import Plan
from mmjax.plan.table import size, verdict

# Okabe and Ito's colour-blind-safe palette.
_COLORS = ("#0072b2", "#56b4e9", "#009e73", "#f0e442", "#e69f00", "#999999")


def save_picture(plan: Plan, chip: Hardware, name: str, path: Path) -> None:
  """Draw the memory bar and, if the step compiled, the roofline plot.

  Args:
    plan: the plan.
    chip: hardware of the plan.
    name: name of the run, for the title.
    path: file to write.
  Raises: OSError: the file cannot be written.
  """
  figure = Figure(figsize=(10, 6.2 if plan.flops else 2.6), layout="constrained")
  figure.suptitle(f"{name} on {plan.topology}, batch {plan.batch_size:,}", fontsize=13)
  if plan.flops:
    memory, roof = figure.subplots(2, 1, height_ratios=(1, 2.6))
    _roofline(roof, plan, chip)
  else:
    memory = figure.subplots()
  _memory_bar(memory, plan)
  figure.savefig(path, dpi=130)


def _memory_bar(axes: Axes, plan: Plan) -> None:
  m = plan.memory
  parts = {
    "parameters": m.parameters,
    "optimiser": m.optimizer,
    "average": m.average,
    "batch": m.batch,
    "activations, gradients, scratch": m.temporaries,
    "program, results and runtime": m.code + m.outputs + m.runtime,
  }
  left = 0.0
  for (label, count), color in zip(parts.items(), _COLORS, strict=True):
    if count:
      axes.barh(0, count / GIB, left=left, color=color, label=f"{label} {size(count)}")
      left += count / GIB
  limit = plan.hbm_bytes / GIB
  axes.axvline(limit, color="#d55e00", linewidth=2, label=f"available {size(plan.hbm_bytes)}")
  axes.set_xlim(0, 1.03 * max(limit, left))
  axes.set_yticks([])
  fits, _, numbers = verdict(plan).plain.partition(":")
  axes.set_xlabel(f"memory of a device, GiB: {fits.lower()}:{numbers}")
  axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.42), ncols=4, fontsize=8, frameon=False)
  axes.spines[["left", "right", "top"]].set_visible(False)


def _roofline(axes: Axes, plan: Plan, chip: Hardware) -> None:
  """Draw FLOP/s over FLOPs per byte. The roof is the highest FLOP/s of the chip at each intensity."""
  assert plan.flops and plan.memory_traffic and plan.step_seconds
  intensity = plan.flops / plan.memory_traffic
  ridge = chip.flops / chip.hbm_bandwidth
  x = np.geomspace(min(intensity, ridge) / 8, max(intensity, ridge) * 8, 200)
  axes.loglog(x, np.minimum(chip.flops, x * chip.hbm_bandwidth) / 1e12, color="#444444", linewidth=2)
  reached = {
    "roofline": min(chip.flops, intensity * chip.hbm_bandwidth),
    "compiled FLOPs in the step's time": plan.flops / plan.step_seconds,
    "model FLOPs in the step's time (MFU)": plan.model_flops / plan.step_seconds,
  }
  for (label, value), color, marker in zip(reached.items(), ("#444444", "#0072b2", "#d55e00"), "_os", strict=True):
    shown = f"{label}: {value / 1e12:.3g} TFLOP/s, {value / chip.flops:.1%} of peak"
    axes.plot(intensity, value / 1e12, marker, color=color, markersize=9, label=shown, linestyle="none")
  if plan.interconnect_seconds:
    wires = plan.flops / plan.interconnect_seconds / 1e12
    if wires < 20 * chip.flops / 1e12:
      axes.axhline(wires, color="#cc79a7", linestyle=":", label=f"interconnect allows {wires:.3g} TFLOP/s")
  axes.set_xlabel("intensity: FLOPs per byte of memory traffic")
  axes.set_ylabel("TFLOP/s of a device")
  axes.legend(loc="lower right", fontsize=8)
  axes.grid(alpha=0.25, which="both")

"""Table of a Plan for the terminal. Each row gives the source of its number."""

from collections.abc import Iterable

from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mmjax.plan.result import Change, Plan
from mmjax.plan.search import Search

Row = tuple[str, str, str]
_KERNELS = 5


def report(plan: Plan, name: str) -> Group:
  """Make the report of a plan: a heading, the verdict, the table and the notes."""
  mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
  pieces = "one piece" if plan.microbatches == 1 else f"{plan.microbatches} microbatches"
  remat = ", ".join(f"{tower} {policy}" for tower, policy in plan.remat.items())
  head = (
    f"{name} on {plan.topology}: {plan.parameters / 1e6:.1f}M parameters, batch {plan.batch_size:,} in {pieces}, "
    f"mesh {mesh}, remat {remat}"
  )
  table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
  table.add_column("per device and step", no_wrap=True)
  table.add_column("", justify="right", no_wrap=True)
  table.add_column("source")
  for rows in (_memory(plan), _work(plan), _wires(plan), _time(plan), _run(plan)):
    for row in rows:
      table.add_row(*map(escape, row))
    table.add_section()
    table.add_row()
  notes = [Text(f"note: {note}", style="yellow") for note in plan.notes]
  return Group(Text(head, style="bold"), verdict(plan), Text(), table, *notes)


def verdict(plan: Plan) -> Text:
  """Make the sentence that says whether the step fits, and by how much."""
  share = abs(plan.margin_bytes) / plan.hbm_bytes
  sizes = f"{size(plan.peak_bytes)} of {size(plan.hbm_bytes)} per device"
  if plan.fits:
    return Text(f"FITS: {sizes}, {share:.0%} to spare", style="bold green")
  if plan.margin_bytes == -1:  # the compiler gave up and named no number
    return Text(f"DOES NOT FIT: more than {size(plan.hbm_bytes)} per device", style="bold red")
  return Text(f"DOES NOT FIT: {sizes}, {size(-plan.margin_bytes)} ({share:.0%}) too much", style="bold red")


def changes_table(changes: tuple[Change, ...]) -> Table | Text:
  """Make the table of changes that make the step fit."""
  if not changes:
    return Text("No change of mesh, microbatches, remat, batch or machine that was tried makes it fit.", style="red")
  table = Table("changes that make it fit", "peak", "step", "run", "source", "", box=None, pad_edge=False)
  for change in changes:
    step = "?" if change.step_seconds is None else seconds(change.step_seconds)
    cost = "?" if change.cost is None else f"${change.cost:,.0f}"
    says = "the compiler" if change.compiled else "a rule of thumb"
    table.add_row(escape(change.options), size(change.peak_bytes), step, cost, says, escape(change.note))
  return table


def search_table(search: Search) -> Group:
  """Make the table of a search: its trials and its result."""
  table = Table("tried", "fits", "peak", "samples/s", "MFU", box=None, pad_edge=False)
  for trial in search.trials:
    rate = "" if trial.samples_per_second is None else f"{trial.samples_per_second:,.0f}"
    mfu = "" if trial.mfu is None else f"{trial.mfu:.1%}"
    table.add_row(escape(trial.options), "yes" if trial.fits else "no", size(trial.peak_bytes), rate, mfu)
  found = f"{search.goal}: {search.options or 'as it is'}" if search.best else f"{search.goal}: nothing fits"
  return Group(table, Text(found, style="bold green" if search.best else "bold red"), Text())


def size(count: float) -> str:
  """Format a number of bytes with a unit from B to GiB."""
  for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
    if abs(count) >= scale:
      return f"{count / scale:.2f} {unit}"
  return f"{count:.0f} B"


def seconds(value: float) -> str:
  """Format a duration in seconds or milliseconds."""
  return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def _memory(plan: Plan) -> Iterable[Row]:
  m = plan.memory
  exact, compiled = "exact, from shapes and shardings", "compiled"
  yield "parameters", size(m.parameters), exact
  yield "optimiser", size(m.optimizer), exact
  if m.average:
    yield "moving average", size(m.average), exact
  yield "batch", size(m.batch), exact
  yield "activations, gradients, scratch", size(m.temporaries), compiled
  yield "outputs without alias", size(m.outputs), compiled
  yield "program", size(m.code), compiled
  if m.runtime:
    yield "runtime", size(m.runtime), "modelled from measurements: memory outside the program"
  yield (
    "peak",
    size(plan.peak_bytes),
    f"{compiled}; of {size(plan.hbm_bytes)} (published), {size(plan.margin_bytes)} left",
  )


def _work(plan: Plan) -> Iterable[Row]:
  if plan.flops is not None:
    yield "FLOPs", f"{plan.flops / 1e12:.4g} T", "compiled: matrix products, loops by trip count"
  yield "FLOPs of the model", f"{plan.model_flops / 1e12:.4g} T", "mmjax.plan.model_flops"
  if plan.recompute_share is not None:
    yield "recomputed", f"{plan.recompute_share:.1%}", "of the compiled FLOPs"
  if plan.flops is not None and plan.flops < plan.model_flops:
    share = 1 - plan.flops / plan.model_flops
    yield "not computed", f"{share:.1%}", "of the model's FLOPs: their results are unused (last block's other tokens)"
  if plan.memory_traffic is not None:
    yield "memory traffic", size(plan.memory_traffic), "compiled: operands and results of every kernel"


def _wires(plan: Plan) -> Iterable[Row]:
  for one in plan.collectives:
    across = ", ".join(one.axes) or "no axis"
    what = f"{one.kind} over {across}"
    yield (
      what,
      size(one.bytes),
      f"compiled: {one.count} runs, {one.group_size} devices; {seconds(one.seconds)} modelled",
    )
  if not plan.collectives and plan.flops is not None:
    yield "collectives", "none", "compiled"


def _time(plan: Plan) -> Iterable[Row]:
  if plan.step_seconds is None or plan.mfu is None:
    return
  yield "compute", seconds(plan.compute_seconds or 0), "modelled: compiled FLOPs at the published peak"
  yield "memory", seconds(plan.hbm_seconds or 0), "modelled: traffic at the published bandwidth"
  yield "interconnect", seconds(plan.interconnect_seconds or 0), "modelled: rings at full speed, no contention"
  if plan.compiler_seconds is not None:
    yield (
      "compiler's estimate",
      seconds(plan.compiler_seconds),
      "compiled: cycles summed over loops, schedules of hand-written kernels; at the chip's clock",
    )
  for name, times, spent in plan.kernels[:_KERNELS]:
    yield f"  {name[-40:]}", seconds(spent), f"compiler's estimate, {times} runs"
  best = "compiler's estimate or interconnect, the larger" if plan.time_source == "compiler" else "largest of the three"
  yield "step", seconds(plan.step_seconds), f"modelled: {best}"
  yield "samples/s, all devices", f"{plan.samples_per_second:,.0f}", "modelled"
  yield "MFU", f"{plan.mfu:.1%}", "modelled" if plan.time_source == "compiler" else "an upper bound"


def _run(plan: Plan) -> Iterable[Row]:
  if plan.chip_hours is not None:
    hours = f"{plan.chip_hours:,.1f}" if plan.chip_hours >= 10 else f"{plan.chip_hours:.2g}"
    yield f"run of {plan.steps:,} steps", f"{hours} h", f"modelled: chip-hours of {plan.chips} chips"
    yield "cost", f"${plan.cost:,.2f}", f"at ${plan.price:g} per chip-hour (--price)"
  ago = ", from the cache (--fresh compiles again)" if plan.cached else ""
  took = f"{plan.trace_seconds + plan.compile_seconds:.1f} s"
  yield "planning took", took, f"tracing {plan.trace_seconds:.1f}, compiling {plan.compile_seconds:.1f}{ago}"


def show(renderable: Group | Table | Text, *, to_stderr: bool = False) -> None:
  """Print to the terminal. For a pipe, lines have up to 140 characters."""
  console = Console(stderr=to_stderr)
  if not console.is_terminal:
    console = Console(stderr=to_stderr, width=140)
  console.print(renderable, highlight=False)

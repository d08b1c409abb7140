"""`python experiments/X.py plan`: parses, plans, prints, draws."""

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mmjax.catalogue import KINDS
from mmjax.choosing import chosen, listing
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment
from mmjax.files import write_atomically
from mmjax.kinds import Kind, check
from mmjax.plan.api import fit_mesh, plan
from mmjax.plan.changes import cheapest_changes
from mmjax.plan.hardware import CHIPS
from mmjax.plan.record import Plan
from mmjax.plan.search import Goal, Search, find
from mmjax.plan.topologies import parse_topology

DOES_NOT_FIT = 3
EPILOG = """plan compiles the very step that training runs, from shapes alone, with the machine's real compiler
(TPU: libtpu; GPU: a CUDA plugin of JAX; neither needs a TPU, GPU or driver), in a process of its own.

Compiled (the compiler says so): memory and whether it fits, FLOPs, memory traffic, collectives, and on TPU the cycles.
(The TPU's compiler estimates its own kernels, not ours of attention and norms: the schedule it made for those counts,
or the time to read and write once what they do, if that is longer.)

Modelled (computed from published peaks): rooflines, interconnect time (rings at full speed, hidden behind compute),
step time, samples/s, MFU, cost. On GPU and CPU no compiler estimates time: step time and MFU are bounds no run reaches.

Not known: contention on the interconnect, input, hosts, stragglers, restarts, autotuning and fragmentation on GPUs.

Exit status: 0 it fits, 3 it does not (the report says what would help), 2 a mistake in the command."""


@dataclasses.dataclass(frozen=True)
class PlanOptions:
  """What to plan for, and what to do with the answer."""

  topology: str
  """The machine: v5e:16x16, v4:4x4x4, v5p:4x4x8, v6e:8x8, tpu7x:4x4x4; h100x8, h200x8, a100x64; cpu:8."""
  json: bool = False
  """Write the Plan as JSON to standard output, and nothing else there."""
  find: Goal | None = None
  """Search by real compilations: the largest batch that fits, the fewest microbatches with which this batch fits, or
  the mesh and remat policy of the highest predicted throughput. What was compiled is remembered in DATA.DIR/plan."""
  price: str | None = None
  """US dollars a chip-hour; or a JSON file of them by chip, {"v5e": 0.6, "h100": 2.5}. Default: list prices."""
  out: Path | None = None
  """Folder for the picture and the JSON; WORKDIR/plan where it is not given."""
  fresh: bool = False
  """Compile again what is remembered."""


@dataclasses.dataclass(frozen=True)
class _Request:
  plan: tyro.conf.OmitArgPrefixes[PlanOptions]
  experiment: Annotated[Experiment, tyro.conf.arg(name="")]


def run(
  experiment: Experiment,
  description: str | None,
  arguments: Sequence[str],
  *,
  core: Any = None,
  kinds: tuple[type[Kind], ...] = (),
) -> int:
  """Parses the command line and does what it says.

  Args:
    experiment: the defaults.
    description: of the script, for --help.
    arguments: after the word `plan`.
    core, kinds: the optimiser transformation and the classes of the script, as in mmjax.cli.main. With either, the
      planning process runs the script, so that it compiles what the script trains.
  Returns: the exit status.
  """
  options, experiment = _parse(experiment, description, arguments, kinds)
  script = None if core is None and not kinds else Path(sys.argv[0])
  parallel, notes = fit_mesh(experiment.parallel, parse_topology(options.topology))
  experiment = dataclasses.replace(experiment, parallel=parallel)
  price = read_price(options.price, options.topology)

  def compile_plan(changed: Experiment, topology: str) -> Plan:
    with _progress() as say:
      return plan(changed, topology, price=price, fresh=options.fresh, say=say, script=script)

  search = None
  if options.find is not None:
    search = find(options.find, experiment, options.topology, _announced(compile_plan))
  found = compile_plan(experiment, options.topology) if search is None else search.best
  if found is not None:
    found = dataclasses.replace(found, notes=(*notes, *found.notes))
  return _answer(experiment, options, found, search, compile_plan)


def _parse(
  experiment: Experiment, description: str | None, arguments: Sequence[str], kinds: tuple[type[Kind], ...]
) -> tuple[PlanOptions, Experiment]:
  known = check((*KINDS, *kinds))
  experiment, arguments = chosen(experiment, arguments, known)
  try:
    request = tyro.cli(
      _Request,
      prog=f"{os.path.basename(sys.argv[0])} plan",
      description=f"{description or ''}\n\n{EPILOG}\n\n{listing(experiment, known)}",
      default=_Request(PlanOptions(topology=tyro.MISSING), experiment),
      args=arguments,
      config=(tyro.conf.AvoidSubcommands,),
    )
  except ValueError as error:  # a field's own check
    raise ConfigError(str(error)) from error
  return request.plan, request.experiment


def read_price(text: str | None, topology: str) -> float | None:
  """The price a chip-hour from a number or a JSON file. Raises ConfigError, naming what is wrong with it."""
  if text is None:
    return None
  chip = parse_topology(topology).hardware.name
  try:
    price = float(text)
  except ValueError:
    try:
      prices = json.loads(Path(text).expanduser().read_text(encoding="utf-8"))
      price = float(prices[chip]) if chip in prices else -1.0
    except (OSError, ValueError, TypeError) as error:
      raise ConfigError(f"--price {text} is neither a number nor a JSON file of prices by chip: {error}") from error
    if chip not in prices:
      raise ConfigError(f"--price {text} has no price for {chip}; chips are {', '.join(CHIPS)}, cpu") from None
  if not 0 <= price < float("inf"):
    raise ConfigError(f"--price {price} must be a number of dollars, 0 or more")
  return price


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
  """A line on standard error that says what is going on, and since when; nothing where that is no terminal."""
  columns, console = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()), Console(stderr=True)
  with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
    task = progress.add_task("starting")
    yield lambda phase: progress.update(task, description=phase)


def _announced(compile_plan: Callable[[Experiment, str], Plan]) -> Callable[[Experiment, str], Plan]:
  """Says how each compilation of a search ended, a line each on standard error."""
  console = Console(stderr=True)

  def compile_and_say(changed: Experiment, topology: str) -> Plan:
    found = compile_plan(changed, topology)
    mesh, verdict = found.mesh, "fits" if found.fits else "does not fit"
    rate = "" if found.samples_per_second is None else f", {found.samples_per_second:,.0f} samples/s"
    line = (
      f"{topology}: batch {found.batch_size:,}, {found.microbatches} microbatch(es), fsdp {mesh['fsdp']}, "
      f"model {mesh['model']}, remat {'/'.join(found.remat.values())}: {verdict}{rate}"
    )
    console.print(line, highlight=False, soft_wrap=True)
    return found

  return compile_and_say


def _answer(
  experiment: Experiment,
  options: PlanOptions,
  found: Plan | None,
  search: Search | None,
  compile_plan: Callable[[Experiment, str], Plan],
) -> int:
  """Prints and saves; looks for what would help where it does not fit."""
  from mmjax.plan.table import changes_table, report, search_table, show

  name = experiment.run.workdir.name
  if search is not None:
    show(search_table(search), to_stderr=options.json)
  if found is None:
    if options.json:
      print(json.dumps(search.to_json() if search else {"fits": False}, indent=2))
    return DOES_NOT_FIT
  if not options.json:
    show(report(found, name))
  if not found.fits:
    Console(stderr=True).print("looking for what would make it fit", highlight=False)
    changes = cheapest_changes(experiment, found, _announced(compile_plan))
    found = dataclasses.replace(found, changes=changes)
    show(changes_table(changes), to_stderr=options.json)
  result = found.to_json() if search is None else dataclasses.replace(search, best=found).to_json()
  _save(found, result, name, options.out or experiment.run.workdir / "plan")
  if options.json:
    print(json.dumps(result, indent=2))
  return 0 if found.fits else DOES_NOT_FIT


def _save(found: Plan, result: dict, name: str, folder: Path) -> None:
  """Writes the JSON and the picture; a folder that cannot be written loses them and says so."""
  from mmjax.plan.picture import save_picture

  console, stem = Console(stderr=True), found.topology.replace(":", "-")
  try:
    folder.expanduser().mkdir(parents=True, exist_ok=True)
    path = folder.expanduser() / f"{stem}.png"
    write_atomically(path.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    save_picture(found, parse_topology(found.topology).hardware, name, path)
  except OSError as error:
    console.print(f"the picture cannot be written: {error}; choose another --out", style="yellow", highlight=False)
    return
  console.print(f"picture: {path}  (and {path.with_suffix('.json').name})", highlight=False, soft_wrap=True)

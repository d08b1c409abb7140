"""Command `python experiments/X.py plan`: parse the options, plan, and print, draw and save the result."""

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
from mmjax.plan.result import Plan
from mmjax.plan.search import Goal, Search, find
from mmjax.plan.topologies import parse_topology

DOES_NOT_FIT = 3
EPILOG = """plan compiles the step that training runs, from shapes alone, with the machine's own compiler (TPU: libtpu;
GPU: a CUDA plugin of JAX). It needs no TPU, GPU or driver. The compiler runs in a separate process.

Compiled (reported by the compiler): memory and whether the step fits, FLOPs, memory traffic, collectives, and on TPU
the cycles. (The TPU compiler estimates no cycles for mmjax's own kernels of attention and norms. Their time is that of
the schedule it made for them, or the time to read and write their arrays once, if that is longer.)

Modelled (computed from published peaks): rooflines, interconnect time (ring algorithms at full speed, overlapped with
compute), step time, samples/s, MFU, cost. On GPU and CPU no compiler estimates time: step time and MFU are bounds that
no run reaches.

Not known: contention on the interconnect, input, hosts, stragglers, restarts, autotuning and fragmentation on GPUs.

Exit status: 0 the step fits, 3 it does not fit (the report lists changes that help), 2 a mistake in the command."""


@dataclasses.dataclass(frozen=True)
class PlanOptions:
  """Options of the command."""

  topology: str
  """Machine, such as v5e:16x16, v4:4x4x4, v5p:4x4x8, v6e:8x8, tpu7x:4x4x4, h100x8, h200x8, a100x64 or cpu:8."""
  json: bool = False
  """Write the plan as JSON to standard output, and nothing else."""
  find: Goal | None = None
  """Search by compiling: the largest batch that fits, the fewest microbatches with which this batch fits, or the mesh
  and remat policy with the highest predicted throughput. Compiled steps are cached in DATA.DIR/plan."""
  price: str | None = None
  """US dollars per chip-hour, or a JSON file of prices by chip, {"v5e": 0.6, "h100": 2.5}. Default: list prices."""
  out: Path | None = None
  """Folder for the image and the JSON file. Default: WORKDIR/plan."""
  fresh: bool = False
  """Compile again, even if the result is cached."""


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
  """Run the command.

  Args:
    experiment: defaults of the experiment's options.
    description: description of the script, for --help.
    arguments: command line after the word `plan`.
    core: the script's own optimiser transformation, as in mmjax.cli.main.
    kinds: the classes that the script defines, as in mmjax.cli.main. With `core` or `kinds`, the planning process runs
      the script, so that it compiles the step that the script trains.
  Returns: the exit status: 0 if the step fits, 3 if it does not.
  Raises: ConfigError: an option is wrong. TopologyError, PlanError: as for `mmjax.plan.plan`.
  """
  options, wanted = _parse(experiment, description, arguments, kinds)
  if wanted.pretrained.path not in (None, experiment.pretrained.path):  # as in training: the checkpoint's model
    from mmjax.train.adopt import adopted

    begun = dataclasses.replace(experiment, pretrained=wanted.pretrained)
    options, wanted = _parse(adopted(begun, say=False), description, arguments, kinds)
  experiment = wanted
  script = None if core is None and not kinds else _script()
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


def _script() -> Path:
  """The script that runs. Raises ConfigError if there is none, such as in a notebook or `python -c`."""
  path = Path(sys.argv[0])
  if not path.is_file() or path.stem == "ipykernel_launcher":
    raise ConfigError(
      "plan runs the script again in the planning process, for the classes and the optimiser that it defines, and this "
      "is no script: write the experiment to a .py file that calls mmjax.cli.main, and run that"
    )
  return path


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
  except ValueError as error:  # from the check of a field
    raise ConfigError(str(error)) from error
  return request.plan, request.experiment


def read_price(text: str | None, topology: str) -> float | None:
  """Read the price per chip-hour.

  Args:
    text: a number, the path of a JSON file of prices by chip, or None.
    topology: name of the machine.
  Returns: US dollars per chip-hour, or None if `text` is None.
  Raises: ConfigError: the text is neither, the file has no price for the chip, or the price is negative.
  """
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
    raise ConfigError(f"--price {price} must be an amount in US dollars, 0 or more")
  return price


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
  """Show the phase and the elapsed time on standard error. Shows nothing if that is not a terminal."""
  columns, console = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()), Console(stderr=True)
  with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
    task = progress.add_task("starting")
    yield lambda phase: progress.update(task, description=phase)


def _announced(compile_plan: Callable[[Experiment, str], Plan]) -> Callable[[Experiment, str], Plan]:
  """Wrap `compile_plan`: print one line on standard error after each compilation."""
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
  """Print and save the result. If the step does not fit, first search for changes that help.

  Returns: the exit status.
  """
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
    Console(stderr=True).print("searching for changes that make it fit", highlight=False)
    changes = cheapest_changes(experiment, found, _announced(compile_plan))
    found = dataclasses.replace(found, changes=changes)
    show(changes_table(changes), to_stderr=options.json)
  result = found.to_json() if search is None else dataclasses.replace(search, best=found).to_json()
  _save(found, result, name, options.out or experiment.run.workdir / "plan")
  if options.json:
    print(json.dumps(result, indent=2))
  return 0 if found.fits else DOES_NOT_FIT


def _save(found: Plan, result: dict, name: str, folder: Path) -> None:
  """Write the JSON file and the image. If the folder cannot be written, print a warning."""
  from mmjax.plan.picture import save_picture

  console, stem = Console(stderr=True), found.topology.replace(":", "-")
  try:
    folder.expanduser().mkdir(parents=True, exist_ok=True)
    path = folder.expanduser() / f"{stem}.png"
    write_atomically(path.with_suffix(".json"), json.dumps(result, indent=2) + "\n")
    save_picture(found, parse_topology(found.topology).hardware, name, path)
  except OSError as error:
    console.print(f"the plan cannot be saved: {error}; choose another --out", style="yellow", highlight=False)
    return
  console.print(f"image: {path}  (and {path.with_suffix('.json').name})", highlight=False, soft_wrap=True)

"""Command line of experiment scripts: train, evaluate, report, export, plan, codebook."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import tyro
from rich.console import Console

from mmjax.catalogue import KINDS
from mmjax.choosing import check_listed, chosen, listing
from mmjax.data.errors import DataError
from mmjax.deploy.formats import DTYPES
from mmjax.deploy.formats import FORMATS as PROGRAMS
from mmjax.errors import UserError
from mmjax.experiment import Experiment
from mmjax.interop.formats import FORMATS, find_format
from mmjax.kinds import Kind, check
from mmjax.plan.compilers import WORKER

if TYPE_CHECKING:
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class Call:
  """A call of an experiment script.

  Attributes:
    experiment: default values of the script.
    arguments: command line after the command.
    description: docstring of the script, for --help.
    core: optax transformation that replaces optimizer.algorithm. None: there is none.
    kinds: classes that the script defines for open fields.
    commands: the commands of the script.
  """

  experiment: Experiment
  arguments: Sequence[str]
  description: str | None = None
  core: Any = None
  kinds: tuple[type[Kind], ...] = ()
  commands: tuple[Command, ...] = dataclasses.field(default_factory=lambda: COMMANDS)


@dataclasses.dataclass(frozen=True)
class Command:
  """A command of experiment scripts: the first word of the command line.

  Attributes:
    name: the word.
    help: description for --help.
    run: function that runs the command and returns the exit status. UserErrors that it raises become messages.
  """

  name: str
  help: str
  run: Callable[[Call], int]


def main(
  experiment: Experiment,
  *,
  description: str | None = None,
  core: Any = None,
  kinds: Sequence[type[Kind]] = (),
  commands: Sequence[Command] | None = None,
  arguments: Sequence[str] | None = None,
) -> NoReturn:
  """Parse the command line, run the command, and exit with its status.

  Args:
    experiment: default values. Every field can be overridden with --part.field VALUE.
    description: docstring of the script, for --help.
    core: optax transformation that replaces optimizer.algorithm, such as `optax.scale_by_adopt()`.
    kinds: classes that the script defines for open fields: terms, losses, models, towers (see mmjax.kinds).
    commands: the commands. None: COMMANDS. A script adds its own with (*COMMANDS, Command(...)).
    arguments: the command line. None: sys.argv[1:].
  """
  with answered():
    own = check(kinds)
    answer_planner(core, own, arguments)
    known = tuple(COMMANDS if commands is None else commands)
    command, rest = split_command(arguments, known)
    status = command.run(Call(experiment, rest, description, core, own, known))
  sys.exit(status)


def answer_planner(core: Any, kinds: tuple[type[Kind], ...], arguments: Sequence[str] | None) -> None:
  """If `plan` started this script as its planning process, compile the requested step and exit.

  Args:
    core: the script's own optimiser transformation, as in `main`.
    kinds: the classes that the script defines.
    arguments: the command line. None: sys.argv[1:].
  """
  if arguments is None and sys.argv[1:] == [WORKER]:
    from mmjax.plan.worker import main as compile_step

    compile_step(core, kinds)
    sys.exit()


def split_command(arguments: Sequence[str] | None, commands: Sequence[Command]) -> tuple[Command, list[str]]:
  """Split a command line.

  Args:
    arguments: the command line. None: sys.argv[1:].
    commands: known commands.
  Returns: (command, its options). Without a command, it is the first one.
  """
  rest = list(sys.argv[1:] if arguments is None else arguments)
  known = {command.name: command for command in commands}
  name = rest.pop(0) if rest and not rest[0].startswith("-") else commands[0].name
  if name not in known:
    _fail(f"unknown command {name!r}; commands are {', '.join(known)}, and options start with --")
  return known[name], rest


@contextlib.contextmanager
def answered() -> Iterator[None]:
  """Context that turns errors into a message and an exit status.

  The status is 2 for a mistake of the user, 130 for Ctrl-C, and 141 if the reader of standard output has closed it.
  """
  try:
    try:
      yield
    finally:
      sys.stdout.flush()
  except BrokenPipeError:  # `--help | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest when it exits
    sys.exit(128 + signal.SIGPIPE)
  except (UserError, DataError, FileNotFoundError) as error:
    _fail(str(error))
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    _fail(f"{error.strerror}: {error.filename or 'a file could not be written'}; files saved before are unchanged")
  except KeyboardInterrupt:
    Console(stderr=True).print("interrupted")
    sys.exit(130)


def run_module(
  options: type[Any], act: Callable[[Any], int | None], module: str, arguments: Sequence[str] | None
) -> NoReturn:
  """Run the command line of a module, `python -m MODULE`, and exit with its status.

  Args:
    options: dataclass of the options.
    act: what to do with them. It returns the exit status, or None for 0.
    module: name of the module, for --help.
    arguments: the command line. None: sys.argv[1:].
  """
  with answered():
    parsed = tyro.cli(options, prog=f"python -m {module}", args=arguments)
    with started():
      status = act(parsed)
  sys.exit(status or 0)


def parse(command: str, call: Call) -> Experiment:
  """Parse the options of a command. A mistake ends the program with a message, which names the nearest option.

  Args:
    command: name of the command, for --help.
    call: the call of the script.
  Returns: the experiment of the call with the values of the options.
  """
  experiment, arguments = call.experiment, call.arguments
  known = check((*KINDS, *call.kinds))
  check_listed(experiment, known)
  listed = "\n".join(f"  {one.name:9} {one.help}" for one in call.commands)
  try:
    experiment, arguments = chosen(experiment, arguments, known)
    parsed = tyro.cli(
      type(experiment),
      prog=f"{os.path.basename(sys.argv[0])} {command}",
      description=f"{call.description or ''}\n\nCommands (the first word; default: {call.commands[0].name}):\n"
      f"{listed}\n\n{listing(experiment, known)}",
      default=experiment,
      args=arguments,
      config=(tyro.conf.AvoidSubcommands,),
    )
    parsed.check_streams()
    return parsed
  except ValueError as error:  # from the check of a field
    _fail(str(error))


def begun(command: str, call: Call, experiment: Experiment) -> Experiment:
  """The experiment of a command line that names a checkpoint (pretrained.path) to begin from.

  The checkpoint's model, tokenizer and image preprocessing replace those of the script. The options are then parsed
  again, on top of them.

  Args:
    command: name of the command.
    call: the call of the script.
    experiment: result of `parse`.
  """
  path = experiment.pretrained.path
  if path is None or path == call.experiment.pretrained.path:
    return experiment
  from mmjax.train.adopt import adopted
  from mmjax.train.fit import fit_here

  script = dataclasses.replace(call.experiment, pretrained=experiment.pretrained)
  return fit_here(parse(command, dataclasses.replace(call, experiment=adopted(script))), call.experiment)


@contextlib.contextmanager
def started() -> Iterator[None]:
  """Context that sets up the process (mmjax.parallel.starting), and turns errors into a message and an exit status."""
  from mmjax.parallel.starting import set_up

  with set_up(), answered():
    yield


def _train(call: Call) -> int:
  experiment = parse("train", call)
  with started():  # slow imports (data, checkpoints, figures) are below, after the check of the options
    from mmjax.evaluate import check_ready
    from mmjax.report import check_report
    from mmjax.train.loop import train

    experiment = begun("train", call, experiment)
    outcome = train(experiment, call.core, call.kinds, checks=(check_ready, check_report))
    return outcome.exit_status or _measure_and_report(outcome.run)


def _measure_and_report(run: Run) -> int:
  """Evaluate a trained run and write its report; where the data cannot be read any more, the report without results."""
  from mmjax.report import write_report

  try:
    return _evaluate(run) or _report(run)
  except (UserError, DataError) as error:
    path = write_report(run.workdir)
    raise UserError(
      f"{error} The training is complete, and saved in {run.workdir}; {path} shows it without results. Mend this, then "
      "run the commands evaluate and report."
    ) from error


def _load_and(command: str, run: Callable[[Run], int], call: Call) -> int:
  """Run a command that takes the run in the workdir."""
  workdir = parse(command, call).run.workdir
  with started():
    from mmjax.loading import load_run

    return run(load_run(workdir, kinds=call.kinds))


def _codebook(call: Call) -> int:
  experiment = parse("codebook", call)
  with started():
    from mmjax.train.codebook import write_codebook

    path = write_codebook(experiment)
  Console().print(f"codebook: {path}", highlight=False, soft_wrap=True)
  return 0


def _plan(call: Call) -> int:
  from mmjax.plan.command import run

  return run(call.experiment, call.description, call.arguments, core=call.core, kinds=call.kinds)


def _export(call: Call) -> int:
  """Run the command `export`. Its options are --to, --out and --dtype. Of the experiment, only the workdir is used."""
  options = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
  options.add_argument("--to", default="mmjax")
  options.add_argument("--out", type=Path)
  options.add_argument("--dtype", choices=DTYPES)
  try:
    mine, rest = options.parse_known_args(call.arguments)
  except argparse.ArgumentError as error:
    _fail(str(error))
  workdir = parse("export", dataclasses.replace(call, arguments=rest)).run.workdir
  known = [*(form.name for form in FORMATS), *PROGRAMS]
  if mine.to not in known:
    _fail(f"unknown format {mine.to!r}; formats are {', '.join(known)}")
  if mine.to in PROGRAMS:
    return _export_program(call, workdir, mine.to, mine.out, mine.dtype)
  if mine.dtype is not None:
    _fail(f"--dtype is an option of --to {' and '.join(PROGRAMS)}; {mine.to} holds the weights in float32")
  with started():
    from mmjax.interop.export import export_run, notes
    from mmjax.loading import load_run

    run = load_run(workdir, kinds=call.kinds)
    folder = export_run(run, mine.to, mine.out)
    said = notes(run, find_format(mine.to), folder)
  for note in said:
    Console().print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)
  Console().print(f"exported: {folder}", highlight=False, soft_wrap=True)
  return 0


def _export_program(call: Call, workdir: Path, to: str, folder: Path | None, dtype: str | None) -> int:
  """Export what the model computes, and not only its weights."""
  with started():
    from mmjax.deploy import export
    from mmjax.loading import load_run

    folder = export(load_run(workdir, kinds=call.kinds), to, folder, dtype=dtype or DTYPES[0])
  Console().print(f"exported: {folder}", highlight=False, soft_wrap=True)
  return 0


def _evaluate(run: Run) -> int:
  import jax

  from mmjax.evaluate import measure
  from mmjax.report import print_table

  results = measure(run)
  if jax.process_index() == 0:
    print_table(results)
  return 0


def _report(run: Run) -> int:
  import jax

  from mmjax.report import write_report

  path = write_report(run.workdir, run)
  Console(quiet=jax.process_index() != 0).print(f"report: {path}", highlight=False, soft_wrap=True)
  return 0


COMMANDS: tuple[Command, ...] = (
  Command("train", "train, or resume training; then evaluate and write the report", _train),
  Command(
    "evaluate",
    "evaluate the newest checkpoint in the workdir; writes results.json",
    lambda call: _load_and("evaluate", _evaluate, call),
  ),
  Command("report", "write report.html from the files in the workdir", lambda call: _load_and("report", _report, call)),
  Command(
    "export",
    f"export the model to a format: --to {'|'.join([*(form.name for form in FORMATS), *PROGRAMS])} [--out DIR]",
    _export,
  ),
  Command(
    "plan",
    "predict memory, speed and cost on a machine that need not be present (--topology v5e:16x16; plan --help)",
    _plan,
  ),
  Command("codebook", "fit the codebook of a masked_patches objective to the training images", _codebook),
)
"""The commands of experiment scripts. The first one is the default."""


def _fail(message: str) -> NoReturn:
  Console(stderr=True).print(f"[bold red]error:[/] {_escaped(message)}", highlight=False, soft_wrap=True)
  sys.exit(2)


def _escaped(message: str) -> str:
  from rich.markup import escape

  return escape(message)

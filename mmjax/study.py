"""Studies: several runs that differ in one thing. One command trains, evaluates and compares them."""

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from mmjax.catalogue import KINDS
from mmjax.choosing import check_listed
from mmjax.cli import Call, Command, answer_planner, answered, parse, split_command, started
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment
from mmjax.kinds import Kind


@dataclasses.dataclass(frozen=True)
class Variant:
  """One variant of a study.

  Attributes:
    name: title of its row in the table, and folder of its runs.
    change: function that makes its experiment from that of the study. It must not change run.workdir.
    series: name of its curve if variants have a position on an axis. Otherwise, bars of one series share a colour.
    x: position on the axis.
    prepare: function that is called with the experiment of a run before its training. It can make data from the runs
      before it.
  """

  name: str
  change: Callable[[Any], Any]
  series: str = ""
  x: float | None = None
  prepare: Callable[[Any], None] | None = None


@dataclasses.dataclass(frozen=True)
class Study:
  """The variants of a study and the metrics that are compared.

  Attributes:
    variants: variants, in the order of the table.
    metrics: {heading: name of a metric in results.json, such as "dataset/metric"}. Higher is better.
    axis: label of the axis of `Variant.x`. None: variants have no position on an axis.
    seeds: number of runs per variant. Their seeds start at run.seed. The table shows mean and spread.
    kinds: the classes that the script defines, as in mmjax.cli.main.
    reports: False for many short runs: each writes its results, and only the command `report` draws its report.html.
    pictures: {heading: function that makes a matplotlib figure from the runs}, for the comparison.
  """

  variants: tuple[Variant, ...]
  metrics: Mapping[str, str]
  axis: str | None = None
  seeds: int = 1
  kinds: tuple[type[Kind], ...] = ()
  reports: bool = True
  pictures: Mapping[str, Callable[[Sequence["Member"]], Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a study."""

  variant: Variant
  experiment: Experiment


def main(
  study: Study, experiment: Experiment, *, description: str | None = None, arguments: Sequence[str] | None = None
) -> NoReturn:
  """Parse the command line of a study, run the command, and exit with its status.

  The workdirs of the runs are run.workdir/VARIANT/seedN. The comparison is in run.workdir.

  Args:
    study: the study.
    experiment: default values that all variants share. Every field can be overridden with --part.field VALUE.
    description: docstring of the script, for --help.
    arguments: the command line. None: sys.argv[1:].
  """
  answer_planner(None, study.kinds, arguments)
  commands = _commands(study)
  command, rest = split_command(arguments, commands)
  with answered():
    status = command.run(Call(experiment, rest, description, None, study.kinds, commands))
  sys.exit(status)


def _commands(study: Study) -> tuple[Command, ...]:
  def over_runs(name: str) -> Callable[[Call], int]:
    def run(call: Call) -> int:
      parsed = parse(name, call)
      with started():
        return _run(study, name, parsed)

    return run

  texts = {
    "train": "train every variant, or resume; evaluate each and write its report; then write the comparison",
    "evaluate": "evaluate the newest checkpoint of every variant again",
    "report": "write report.html of every variant, and comparison.md, .png and .html, from the results so far",
  }
  plan = "predict memory, speed and cost of the study's configuration without the changes of variants (--topology)"
  return (*(Command(name, text, over_runs(name)) for name, text in texts.items()), Command("plan", plan, _plan))


def _plan(call: Call) -> int:
  from mmjax.plan.command import run

  return run(call.experiment, call.description, call.arguments, kinds=call.kinds)


def members(study: Study, experiment: Experiment) -> list[Member]:
  """List the runs of a study, ordered by seed, so that a table of all variants is complete early.

  Raises: ConfigError: a variant's settings do not fit together, or it holds a class that study.kinds does not list.
  """
  runs = []
  for seed in range(experiment.run.seed, experiment.run.seed + study.seeds):
    for variant in study.variants:
      try:
        changed = variant.change(experiment)
      except ValueError as error:  # from the check of a field
        raise ConfigError(f"the variant {variant.name!r} of this study cannot have these settings: {error}") from None
      check_listed(changed, (*KINDS, *study.kinds))
      workdir = experiment.run.workdir / _folder(variant.name) / f"seed{seed}"
      run = dataclasses.replace(changed.run, workdir=workdir, seed=seed)
      runs.append(Member(variant, dataclasses.replace(changed, run=run)))
  return runs


def _folder(name: str) -> str:
  return re.sub(r"[^\w.=-]+", "_", name.replace("..", "")).strip("_")


def _run(study: Study, command: str, experiment: Experiment) -> int:
  from mmjax.report import write_comparison

  runs = members(study, experiment)
  programs = _shared_programs() if study.seeds > 1 else None
  for place, member in enumerate(runs, 1):
    workdir = member.experiment.run.workdir
    if command == "report":
      _report(study, workdir)
      continue
    Console().print(f"\n[bold]{place} of {len(runs)}: {member.variant.name}[/], {workdir}", highlight=False)
    if command == "evaluate":
      _evaluate(workdir, study.kinds)
    elif status := _train(study, member, programs):
      return status
  write_comparison(study, runs, experiment.run.workdir)
  return 0


def _shared_programs() -> Callable[..., Any]:
  """mmjax.train.setup.prepare, once for all runs that differ only in seed and workdir: they share compiled programs."""
  from mmjax.train.setup import prepare

  made: dict[Any, Any] = {}

  def prepared(experiment: Experiment, core: Any, *, kinds: tuple[type[Kind], ...]) -> Any:
    key = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, seed=0, workdir=Path()))
    if key not in made:
      made[key] = prepare(key, core, kinds=kinds)
    return dataclasses.replace(made[key], experiment=experiment)

  return prepared


def _train(study: Study, member: Member, programs: Callable[..., Any] | None) -> int:
  """Train and evaluate one run. Does nothing if it is finished and evaluated."""
  import jax

  from mmjax.evaluate import check_ready, measure
  from mmjax.report import check_report, write_report
  from mmjax.train.loop import train

  experiment = member.experiment
  if _finished(experiment):
    Console().print("already finished and evaluated", highlight=False)
    return 0
  if member.variant.prepare is not None:
    member.variant.prepare(experiment)
  outcome = train(experiment, kinds=study.kinds, made_by=programs, checks=(check_ready, check_report))
  if outcome.exit_status:
    return outcome.exit_status
  measure(outcome.run)
  if study.reports:
    write_report(experiment.run.workdir, outcome.run)
  if programs is None:
    jax.clear_caches()  # the next variant compiles another step
  return 0


def _finished(experiment: Experiment) -> bool:
  from mmjax.run import CHECKPOINTS
  from mmjax.train.checkpoint import Checkpoints

  workdir = experiment.run.workdir.expanduser()
  if not (workdir / "results.json").exists():
    return False
  checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
  step = checkpoints.latest_step
  checkpoints.close()
  return step == experiment.run.steps


def _evaluate(workdir: Path, kinds: tuple[type[Kind], ...]) -> None:
  from mmjax.evaluate import measure
  from mmjax.loading import load_run

  measure(load_run(workdir, kinds=kinds))


def _report(study: Study, workdir: Path) -> None:
  """Write the report of a run that was evaluated."""
  from mmjax.loading import load_run
  from mmjax.report import write_report

  if (workdir.expanduser() / "results.json").exists():
    write_report(workdir, load_run(workdir, kinds=study.kinds))

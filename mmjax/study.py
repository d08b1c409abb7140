"""Several runs that differ in one thing, compared: one command trains, measures and tabulates them all."""

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from rich.console import Console

from mmjax.cli import answer_planner, answered, parse, split_command, started
from mmjax.errors import UserError
from mmjax.experiment import Experiment
from mmjax.kinds import Kind

COMMANDS: Mapping[str, str] = MappingProxyType(
  {
    "train": "train every variant, or go on; measure each and write its report; then write the comparison",
    "evaluate": "measure the newest checkpoint of every variant again",
    "report": "write report.html of every variant, and comparison.md, .png and .html, from what has been measured",
    "plan": "what a step of the study's own configuration, before a variant changes it, would take (--topology)",
  }
)


@dataclasses.dataclass(frozen=True)
class Variant:
  """One of the things that are compared.

  Attributes:
    name: the row's title, and the folder of its runs.
    change: makes its experiment from the study's; must leave run.workdir alone.
    series: the curve it belongs to, where variants have a place along an axis; elsewhere, bars of one colour.
    x: that place.
    prepare: called with its run's experiment before that is trained: makes data of the runs before it.
  """

  name: str
  change: Callable[[Any], Any]
  series: str = ""
  x: float | None = None
  prepare: Callable[[Any], None] | None = None


@dataclasses.dataclass(frozen=True)
class Study:
  """What is compared, and by what.

  Attributes:
    variants: in the order of the table.
    metrics: {heading: name of a metric in results.json, as "dataset/metric"}; higher is better.
    axis: what `Variant.x` is; None where variants have no order.
    seeds: how many runs of each variant, from run.seed on; the table gives mean and spread.
    kinds: classes of the script's own, as in mmjax.cli.main.
    train: trains and measures a run in place of mmjax.train.loop.train, and writes its results.json, unless that is
      there already: for runs so short that compiling, loading and saving would take longer than the training.
    pictures: {heading: makes a matplotlib figure of the runs}, for the comparison.
  """

  variants: tuple[Variant, ...]
  metrics: Mapping[str, str]
  axis: str | None = None
  seeds: int = 1
  kinds: tuple[type[Kind], ...] = ()
  train: Callable[["Member"], None] | None = None
  pictures: Mapping[str, Callable[[Sequence["Member"]], Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a study. Its experiment is of the script's own type where the study has a `train` of its own."""

  variant: Variant
  experiment: Any


def main(
  study: Study, experiment: Any, *, description: str | None = None, arguments: Sequence[str] | None = None
) -> NoReturn:
  """The command line of a study: mmjax.cli.main's, whose overrides go to what all variants share.

  The variants' runs are in run.workdir/VARIANT/seedN, each a workdir of its own; the comparison is in run.workdir.
  """
  answer_planner(None, study.kinds, arguments)
  command, rest = split_command(arguments, COMMANDS)
  with answered():
    if command == "plan":
      sys.exit(_plan(study, experiment, description, rest))
    experiment = parse(experiment, command, description, rest, COMMANDS, study.kinds)
    with started():
      status = _run(study, command, experiment)
  sys.exit(status)


def _plan(study: Study, experiment: Any, description: str | None, arguments: Sequence[str]) -> int:
  from mmjax.plan.command import run

  if study.train is not None:
    raise UserError("the runs of this study have a training of their own, which plan does not know")
  return run(experiment, description, arguments, kinds=study.kinds)


def members(study: Study, experiment: Any) -> list[Member]:
  """Every run of the study, seed by seed, so that a table of all variants is there early."""
  runs = []
  for seed in range(experiment.run.seed, experiment.run.seed + study.seeds):
    for variant in study.variants:
      changed = variant.change(experiment)
      workdir = experiment.run.workdir / _folder(variant.name) / f"seed{seed}"
      run = dataclasses.replace(changed.run, workdir=workdir, seed=seed)
      runs.append(Member(variant, dataclasses.replace(changed, run=run)))
  return runs


def _folder(name: str) -> str:
  return re.sub(r"[^\w.=-]+", "_", name.replace("..", "")).strip("_")


def _run(study: Study, command: str, experiment: Any) -> int:
  from mmjax.evaluate.comparison import write_comparison

  runs = members(study, experiment)
  for place, member in enumerate(runs, 1):
    workdir = member.experiment.run.workdir
    if command == "report":
      _report(study, workdir)
      continue
    Console().print(f"\n[bold]{place} of {len(runs)}: {member.variant.name}[/], {workdir}", highlight=False)
    status = _one(study, command, member)
    if status:
      return status
  write_comparison(study, runs, experiment.run.workdir)
  return 0


def _one(study: Study, command: str, member: Member) -> int:
  if study.train is None:
    return _train(member, study.kinds) if command == "train" else _evaluate(member.experiment.run.workdir, study.kinds)
  if command == "evaluate":
    raise UserError("the runs of this study keep no checkpoints: train measures them")
  study.train(member)
  return 0


def _train(member: Member, kinds: tuple[type[Kind], ...]) -> int:
  """Trains and measures one run; one that is finished and measured is left as it is."""
  import jax

  from mmjax.evaluate import measure, write_report
  from mmjax.train.loop import train

  experiment = member.experiment
  if _finished(experiment):
    Console().print("finished and measured already", highlight=False)
    return 0
  if member.variant.prepare is not None:
    member.variant.prepare(experiment)
  outcome = train(experiment, kinds=kinds)
  if outcome.exit_status:
    return outcome.exit_status
  measure(outcome.run)
  write_report(experiment.run.workdir, outcome.run)
  jax.clear_caches()  # the next variant compiles its own step
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


def _evaluate(workdir: Path, kinds: tuple[type[Kind], ...]) -> int:
  from mmjax.evaluate import measure
  from mmjax.run import load_run

  measure(load_run(workdir, kinds=kinds))
  return 0


def _report(study: Study, workdir: Path) -> None:
  """The report of a run that was measured; a study that trains its runs itself keeps nothing to make one of."""
  from mmjax.evaluate import write_report
  from mmjax.run import load_run

  if study.train is None and (workdir.expanduser() / "results.json").exists():
    write_report(workdir, load_run(workdir, kinds=study.kinds))

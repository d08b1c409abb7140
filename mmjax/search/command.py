"""The command line of a search: `search` trains trials, `report` compares those that there are."""

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from rich.console import Console

from mmjax.cli import Call, Command, answer_planner, answered, parse, split_command, started
from mmjax.errors import ConfigError, UserError
from mmjax.experiment import Experiment, to_json
from mmjax.kinds import Kind
from mmjax.search.halving import Trial, next_job, rungs
from mmjax.search.space import Space, changed, check_space, drawn, suggested
from mmjax.search.trials import Trials


@dataclasses.dataclass(frozen=True)
class Search:
  """The space of a search, and its metric.

  Attributes:
    space: {path of a field, such as "optimizer.learning_rate": its range}.
    metric: name of a metric of the results, such as "flickr/image_retrieval_recall@1". None: the most important one
      that a run measures.
    maximize: True if a higher value is better.
    kinds: the classes that the script defines, as in mmjax.cli.main.
  """

  space: Space
  metric: str | None = None
  maximize: bool = True
  kinds: tuple[type[Kind], ...] = ()


@dataclasses.dataclass(frozen=True)
class SearchOptions:
  """Number of trials, and how their steps are shared out."""

  trials: int = 27
  """Number of trials that begin. A later command may ask for more."""
  sampler: Literal["random", "tpe"] = "random"
  """Values of new trials: at random, or by Optuna's TPE (pip install 'mmjax[sweep]'), which learns from the others."""
  rungs: int = 3
  """Number of times at which trials are compared: after run.steps, run.steps / reduction, and so on. 1: none stops
  early."""
  reduction: int = 3
  """At each rung, the best 1/reduction of the trials go on."""
  processes: int = 1
  """Processes that train trials at the same time on this machine. Each sees all of its devices."""

  def __post_init__(self) -> None:
    for name, least in (("trials", 1), ("rungs", 1), ("reduction", 2), ("processes", 1)):
      if getattr(self, name) < least:
        raise ValueError(f"search.{name} is {getattr(self, name)}: it must be at least {least}")


@dataclasses.dataclass(frozen=True)
class Searching(Experiment):
  """An experiment whose settings are searched."""

  search: SearchOptions = SearchOptions()
  """The search."""


def main(
  search: Search, experiment: Experiment, *, description: str | None = None, arguments: Sequence[str] | None = None
) -> NoReturn:
  """Parse the command line of a search, run the command, and exit with its status.

  Trials are in run.workdir/trials/NUMBER, each the workdir of a run. The comparison is in run.workdir. The same command
  resumes a search that was stopped. Started twice at the same time on one machine, the two processes share the work.

  Args:
    search: the search.
    experiment: default values of all trials. Every field can be overridden with --part.field VALUE, and every field of
      SearchOptions with --search.field VALUE.
    description: docstring of the script, for --help.
    arguments: the command line. None: sys.argv[1:].
  """
  answer_planner(None, search.kinds, arguments)
  commands = (
    Command("search", "train trials, or go on; then write the comparison", lambda call: _search(search, call)),
    Command("report", "write the comparison of the trials so far", lambda call: _report(search, call)),
  )
  command, rest = split_command(arguments, commands)
  searching = Searching(**_fields(experiment))
  with answered():
    status = command.run(Call(searching, rest, description, None, search.kinds, commands))
  sys.exit(status)


def _fields(experiment: Experiment) -> dict[str, Any]:
  return {field.name: getattr(experiment, field.name) for field in dataclasses.fields(Experiment)}


def _parsed(command: str, search: Search, call: Call) -> tuple[Experiment, SearchOptions, Search]:
  """The experiment, the options of the search, and the search with its metric, after a check of the space."""
  from mmjax.evaluate.evaluator import best_metric

  both: Any = parse(command, call)
  experiment = Experiment(**_fields(both))
  check_space(experiment, search.space)
  asked = dataclasses.replace(experiment.evaluation, best_metric=search.metric)
  metric = best_metric(dataclasses.replace(experiment, evaluation=asked))
  return experiment, both.search, dataclasses.replace(search, metric=metric)


def _search(search: Search, call: Call) -> int:
  experiment, options, search = _parsed("search", search, call)
  try:
    at = rungs(experiment.run.steps, options.rungs, options.reduction)
  except ValueError as error:
    raise ConfigError(f"--search.rungs, --search.reduction and --run.steps do not go together: {error}") from None
  if options.sampler == "random":  # all values are known, and a combination that cannot be is found now
    for number in range(options.trials):
      changed(experiment, search.space, drawn(search.space, experiment.run.seed, number))
  with started():
    trials = Trials(experiment.run.workdir.expanduser())
    trials.begin(_settings(search, experiment, options))
    others = _start_others(options.processes - 1, trials.workdir)
    try:
      status = _train_trials(search, experiment, options, at, trials)
      for other in others:
        status = max(status, other.wait())
    finally:
      for other in others:
        other.terminate()  # it saves its trial; nothing if it has ended
        other.wait()
    if status == 0:
      _compare(search, experiment, trials)
  return status


def _settings(search: Search, experiment: Experiment, options: SearchOptions) -> dict[str, Any]:
  """Settings that must not change within a search, by name."""
  ranges = {path: {type(one).__name__: _plain(one)} for path, one in search.space.items()}
  found: dict[str, Any] = {"metric": search.metric, "maximize": search.maximize, "space": ranges}
  found |= {f"search.{name}": getattr(options, name) for name in ("sampler", "rungs", "reduction")}
  settings = to_json(experiment)
  del settings["run"]["workdir"]
  return found | _flat(settings)


def _plain(one: Any) -> Any:
  return {name: list(value) if name == "values" else value for name, value in vars(one).items()}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
  if not isinstance(value, dict) or not value:
    return {prefix: value}
  return {
    name: found for key, inner in value.items() for name, found in _flat(inner, f"{prefix}.{key}".lstrip(".")).items()
  }


def _start_others(count: int, workdir: Path) -> list[subprocess.Popen[bytes]]:
  """Start processes with the same command line, whose output goes to files."""
  command = [sys.executable, *sys.argv, "--search.processes", "1"]
  others = []
  for place in range(1, count + 1):
    with (workdir / f"process{place}.log").open("ab") as log:
      others.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL))
  return others


def _train_trials(
  search: Search, experiment: Experiment, options: SearchOptions, at: Sequence[int], trials: Trials
) -> int:
  """Train trials until there is nothing to do. Returns the exit status."""
  while True:
    job = _claim(search, experiment, options, at, trials)
    if job is None:
      return 0
    trial, until = job
    Console().print(
      f"\n[bold]trial {trial.number} to step {until}[/]: {_words(trial)}", highlight=False, soft_wrap=True
    )
    try:
      trial, status = _trained(search, experiment, trial, until, trials.folder(trial.number))
      if status:
        return status
      with trials.locked():
        trials.write(trial)
    finally:
      trials.release(trial.number)


def _claim(
  search: Search, experiment: Experiment, options: SearchOptions, at: Sequence[int], trials: Trials
) -> tuple[Trial, int] | None:
  """Claim the next trial for this process, or begin a new one. None: there is none."""
  with trials.locked():
    known = trials.all()
    job = next_job(known, at, options.reduction, maximize=search.maximize, is_free=trials.is_free)
    if job is None:
      if len(known) >= options.trials:
        return None
      job = Trial(len(known), _new_values(search, experiment, options, at, known)), at[0]
      trials.write(job[0])
    trials.take(job[0].number)
  return job


def _new_values(
  search: Search, experiment: Experiment, options: SearchOptions, at: Sequence[int], known: Sequence[Trial]
) -> dict[str, Any]:
  seed, number = experiment.run.seed, len(known)
  if options.sampler == "random":
    return drawn(search.space, seed, number)
  found = [(one.values, one.score, one.steps == at[-1]) for one in known if one.score is not None]
  return suggested(search.space, seed, number, found, maximize=search.maximize)


def _trained(search: Search, experiment: Experiment, trial: Trial, until: int, workdir: Path) -> tuple[Trial, int]:
  """Train one trial to a step and measure it. Returns the trial with its score, and the exit status."""
  import jax

  from mmjax.evaluate import check_ready, flatten, measure
  from mmjax.train.loop import LossSpikeError, NotFiniteError, train

  run = dataclasses.replace(experiment.run, workdir=workdir)
  mine = dataclasses.replace(changed(experiment, search.space, trial.values), run=run)
  jax.clear_caches()  # the trial before has compiled another step
  try:
    outcome = train(mine, kinds=search.kinds, checks=(check_ready,), until=until)
  except (NotFiniteError, LossSpikeError) as error:
    return dataclasses.replace(trial, scores={**trial.scores, until: None}, note=str(error)), 0
  if outcome.exit_status:
    return trial, outcome.exit_status
  numbers = flatten(measure(outcome.run))
  if search.metric not in numbers:
    raise UserError(f"trial {trial.number} has no {search.metric} among its results: {', '.join(numbers)}")
  score = numbers[search.metric]
  Console().print(f"{search.metric}: {score:.4g}", highlight=False)
  return dataclasses.replace(trial, scores={**trial.scores, until: score}), 0


def _words(trial: Trial) -> str:
  return ", ".join(f"{path} {_number(value)}" for path, value in trial.values.items())


def _number(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def _report(search: Search, call: Call) -> int:
  experiment, _, search = _parsed("report", search, call)
  _compare(search, experiment, Trials(experiment.run.workdir.expanduser()))
  return 0


def _compare(search: Search, experiment: Experiment, trials: Trials) -> None:
  from mmjax.search.report import write_comparison

  found = [trial for trial in trials.all() if trial.scores]
  if not found:
    raise UserError(f"no trial has been measured yet in {trials.workdir}: run the command search first")
  write_comparison(found, search.space, str(search.metric), trials.workdir, maximize=search.maximize)

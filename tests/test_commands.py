"""Commands of experiment scripts are records: a script adds its own."""

import pytest

from mmjax.cli import COMMANDS, Call, Command, main, parse
from mmjax.errors import UserError
from tests.tiny import EXPERIMENT


def count(call: Call) -> int:
  """The number of steps as the exit status, so that a test sees it."""
  steps = parse("count", call).run.steps
  if steps > 100:
    raise UserError(f"{steps} steps are too many to count")
  return steps


def status(*arguments: str) -> int:
  commands = (*COMMANDS, Command("count", "count the steps", count))
  with pytest.raises(SystemExit) as end:
    main(EXPERIMENT, commands=commands, arguments=arguments)
  return end.value.code


def test_a_scripts_own_command_runs_with_its_options(capsys):
  assert status("count", "--run.steps", "7") == 7
  assert status("count", "--run.steps", "101") == 2
  assert "101 steps are too many to count" in capsys.readouterr().err


def test_help_and_errors_list_every_command(capsys):
  assert status("--help") == 0
  shown = capsys.readouterr().out
  assert all(f"{command.name} " in shown for command in COMMANDS) and "count the steps" in shown
  assert status("cuont") == 2
  assert "commands are train, evaluate, report, export, plan, codebook, count" in " ".join(
    capsys.readouterr().err.split()
  )

"""The short form of scripts/benchmarks/kill_campaign.py: kill -9 in a save, SIGTERM in a step."""

import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from scripts.benchmarks import kill_campaign
from scripts.benchmarks.kill_campaign import At, Death

ROOT = Path(__file__).parents[2]


def test_kills_and_a_stop_leave_no_trace(tmp_path):
  script = ROOT / "scripts" / "benchmarks" / "kill_campaign.py"
  command = [sys.executable, str(script), "--kills", "1", "--stops", "1", "--out", str(tmp_path / "campaign")]
  ended = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert "1 of 1 identical" in ended.stdout and "DIFFERS" not in ended.stdout
  assert "1/1: Death(wanted='checkpoint', at=At(phase=" in ended.stdout and "status=-9" in ended.stdout
  assert "1/1: Death(wanted='step', at=At(phase='step'" in ended.stdout and "status=143" in ended.stdout


def death(phase: str, partial: bool = False, starting: bool = False, status: int = -9, seconds: float = 1.0) -> Death:
  return Death("step", At(phase, partial, starting), 3, (3,), status, seconds)


@pytest.mark.parametrize(
  ("at", "kinds"),
  [
    (At("step", False, False), {"step"}),
    (At("evaluation", True, False), {"evaluation", "checkpoint"}),  # a save is written while the model is measured
    (At("checkpoint", False, False), {"checkpoint"}),
    (At("checkpoint", True, False), {"checkpoint"}),
    (At("between", True, False), {"checkpoint"}),
    (At("between", False, True), {"worker start"}),
    (At("between", False, False), {"between"}),
  ],
)
def test_a_run_is_at_all_that_it_is_at(at, kinds):
  assert at.kinds == kinds


def rows(table) -> list[list[str]]:
  page = io.StringIO()
  Console(file=page, width=150).print(table)
  return [[cell.strip() for cell in line.split("│")[1:-1]] for line in page.getvalue().splitlines() if "│" in line]


def test_a_kill_stands_in_every_row_that_it_fits():
  ended = [
    (death("step"), []),
    (death("evaluation", partial=True), []),
    (death("evaluation"), ["results.json"]),
    (death("between"), []),
  ]
  table, well = kill_campaign.kills_table(ended)
  assert rows(table) == [
    ["between", "1", "1"], ["checkpoint", "1", "1"], ["evaluation", "2", "1"], ["step", "1", "1"], ["all", "4", "3"],
  ]  # fmt: skip
  assert not well and kill_campaign.kills_table(ended[:2])[1]
  assert kill_campaign.not_met(ended) == ["worker start"]
  assert kill_campaign.not_met([*ended, (death("between", starting=True), [])]) == []


def test_stops_are_timed_and_their_status_is_looked_at():
  saved = 128 + signal.SIGTERM
  ended = [(death("step", status=saved, seconds=s), []) for s in (1.0, 2.0, 4.0)]
  table, well = kill_campaign.stops_table(ended)
  assert well and rows(table) == [["step", "3", "143", "2.00", "4.00", "3"]]
  assert not kill_campaign.stops_table([*ended, (death("step", status=1), [])])[1]

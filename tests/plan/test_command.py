"""The plan command: what it prints, writes and returns, with a compiler that is a formula."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from mmjax.cli import main
from mmjax.plan.hardware import GIB
from mmjax.plan.topologies import parse_topology
from tests.plan.test_search import BASE, FakeCompiler


@pytest.fixture
def call(monkeypatch, tmp_path):
  """call(row_bytes, *arguments) -> exit status; `asked` collects what was planned with which options."""
  asked = []

  def run(row_bytes, *arguments, core=None):
    compiler = FakeCompiler(row_bytes)

    def plan(experiment, topology, *, price, fresh, say, script):
      parse_topology(topology)
      asked.append((experiment, topology, price, fresh, script))
      say("compiling")
      found = compiler(experiment, topology)
      return found if price is None else dataclasses.replace(found, price=price, cost=(found.chip_hours or 0) * price)

    monkeypatch.setattr("mmjax.plan.command.plan", plan)
    with pytest.raises(SystemExit) as stop:
      main(BASE, arguments=["plan", "--run.workdir", str(tmp_path / "run"), *arguments], core=core)
    return stop.value.code

  run.asked = asked
  return run


def test_a_report_a_picture_and_a_json_file(call, capsys, tmp_path):
  assert call(1, "--topology", "v5e:4x4", "--model.image.depth", "2") == 0
  printed = capsys.readouterr()
  for words in ("FITS", "optimiser", "collectives", "MFU", "chip-hours", "compiled", "modelled"):
    assert words in printed.out
  assert call.asked[0][0].model.image.depth == 2
  folder = tmp_path / "run" / "plan"
  assert (folder / "v5e-4x4.png").stat().st_size > 10_000 and "v5e-4x4.png" in printed.err
  assert json.loads((folder / "v5e-4x4.json").read_text())["fits"] is True


def test_json_alone_goes_to_standard_output(call, capsys, tmp_path):
  assert call(1, "--topology", "v5e:4x4", "--json", "--out", str(tmp_path / "out"), "--fresh") == 0
  record = json.loads(capsys.readouterr().out)
  names = "fits peak_bytes flops collective_bytes step_seconds mfu memory collectives chip_hours cost compile_seconds"
  assert set(names.split()) <= set(record)
  assert (tmp_path / "out" / "v5e-4x4.png").exists() and call.asked[0][3] is True


def test_what_does_not_fit_is_reported_with_three_changes_and_status_3(call, capsys):
  assert call(GIB, "--topology", "v5e:4x4") == 3
  printed = capsys.readouterr().out
  assert "DOES NOT FIT" in printed and printed.count("the compiler") >= 3
  assert call(GIB, "--topology", "v5e:4x4", "--json") == 3
  changes = json.loads(capsys.readouterr().out)["changes"]
  assert len(changes) == 3 and all(change["options"].startswith("--") for change in changes)


def test_a_search_reports_what_it_tried(call, capsys):
  assert call(GIB, "--topology", "v5e:4x4", "--find", "microbatches", "--json") == 0
  record = json.loads(capsys.readouterr().out)
  assert record["microbatches"] == 8 and record["search"]["options"] == "--parallel.microbatches 8"
  assert call(GIB, "--topology", "v5e:4x4", "--find", "microbatches") == 0
  assert "microbatches: --parallel.microbatches 8" in capsys.readouterr().out
  assert call(100 * GIB, "--topology", "v5e:4x4", "--find", "batch-size", "--json") == 3
  assert json.loads(capsys.readouterr().out)["fits"] is False


def test_prices_are_yours_to_set(call, capsys, tmp_path):
  assert call(1, "--topology", "v5e:4x4", "--price", "0.5", "--json") == 0
  record = json.loads(capsys.readouterr().out)
  assert record["price"] == 0.5 and record["cost"] == pytest.approx(0.5 * record["chip_hours"])
  table = tmp_path / "prices.json"
  table.write_text(json.dumps({"v5e": 0.25}))
  assert call(1, "--topology", "v5e:4x4", "--price", str(table)) == 0 and call.asked[-1][2] == 0.25


@pytest.mark.parametrize(
  ("arguments", "said"),
  [
    (["--topology", "v5e:4x44"], "Did you mean 'v5e:4x4'"),
    (["--topology", "v5e:4x4", "--price", "cheap"], "--price cheap"),
    (["--topology", "v5e:4x4", "--price", "-1"], "0 or more"),
    (["--topology", "v5e:4x4", "--run.steps", "0"], "run.steps is 0"),
    ([], "--topology"),
  ],
)
def test_mistakes_are_answered_in_a_sentence(call, capsys, arguments, said):
  assert call(1, *arguments) == 2
  assert said in capsys.readouterr().err


def test_a_price_file_without_the_chip_names_it(call, capsys, tmp_path):
  table = tmp_path / "prices.json"
  table.write_text("{}")
  assert call(1, "--topology", "v5e:4x4", "--price", str(table)) == 2
  assert "no price for v5e" in " ".join(capsys.readouterr().err.split())


def test_a_script_with_its_own_optimiser_is_run_again_to_plan(call, monkeypatch):
  monkeypatch.setattr(sys, "argv", [__file__])
  assert call(1, "--topology", "v5e:4x4", core=object()) == 0
  assert call(1, "--topology", "v5e:4x4") == 0
  assert [asked[4] for asked in call.asked] == [Path(sys.argv[0]), None]


def test_a_notebook_is_told_that_plan_needs_a_script(call, capsys, monkeypatch, tmp_path):
  for first in ("-c", str(tmp_path / "ipykernel_launcher.py")):
    (tmp_path / "ipykernel_launcher.py").touch()
    monkeypatch.setattr(sys, "argv", [first])
    assert call(1, "--topology", "v5e:4x4", core=object()) == 2
    assert "this is no script: write the experiment to a .py file" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_cannot_be_written_costs_the_picture_only(call, capsys, tmp_path):
  (tmp_path / "file").write_text("")
  assert call(1, "--topology", "v5e:4x4", "--out", str(tmp_path / "file" / "x")) == 0
  assert "choose another --out" in " ".join(capsys.readouterr().err.split())

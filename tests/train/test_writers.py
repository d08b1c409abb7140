import json
from pathlib import Path

import pytest

from mmjax.errors import UserError
from mmjax.train.writers import Fanout, JsonLines, WeightsAndBiases, read_evaluations


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_resumed_log_has_no_gap_and_no_duplicate(tmp_path):
  path = tmp_path / "metrics.jsonl"
  first = JsonLines(path, resumed_from=0)
  for step in range(1, 8):
    first.write(step, {"loss": step / 10})
  first.write_evaluation(6, {"acc1": 0.5})
  first.close()
  with path.open("a") as file:
    file.write('{"step": 8, "lo')  # a crash in the middle of a line
  resumed = JsonLines(path, resumed_from=5)
  resumed.write(6, {"loss": 0.6})
  resumed.close()
  assert [record["step"] for record in lines(path)] == [1, 2, 3, 4, 5, 6]
  assert not any("eval" in record for record in lines(path))


def test_a_crash_while_the_log_is_cut_loses_no_line(tmp_path, monkeypatch):
  path = tmp_path / "metrics.jsonl"
  first = JsonLines(path, resumed_from=0)
  for step in (1, 2, 3):
    first.write(step, {"loss": 1.0})
  first.close()
  whole = path.read_bytes()
  path.write_bytes(whole + b"\0\0\0\n" + b'{"step": 4, "lo')  # what a machine that lost its power may leave
  monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    JsonLines(path, resumed_from=2)
  monkeypatch.undo()
  assert path.read_bytes().startswith(whole)
  JsonLines(path, resumed_from=3).close()
  assert path.read_bytes() == whole


def test_a_run_that_goes_back_takes_its_lines_back(tmp_path):
  log = JsonLines(tmp_path / "metrics.jsonl", resumed_from=0)
  for step in (1, 2, 3):
    log.write(step, {"loss": step / 10})
    log.write_evaluation(step, {"acc1": step / 10})
  log.rewind(1)
  log.write(2, {"loss": 0.9})
  log.sync()
  log.close()
  assert [record["step"] for record in lines(tmp_path / "metrics.jsonl")] == [1, 1, 2]
  assert read_evaluations(tmp_path, up_to=3) == {1: {"acc1": 0.1}}


def test_a_full_disk_is_answered(tmp_path, monkeypatch):
  (tmp_path / "metrics.jsonl").symlink_to("/dev/full")  # every write to it fails as on a full disk
  monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("read, and it has no end"))
  log = JsonLines(tmp_path / "metrics.jsonl", resumed_from=0)
  with pytest.raises(UserError, match=r"metrics\.jsonl could not be written: No space left on device"):
    log.write(1, {"loss": 1.0})


def test_every_writer_gets_every_number(tmp_path):
  paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
  writer = Fanout([JsonLines(path, resumed_from=0) for path in paths])
  writer.write(1, {"loss": 2.0})
  writer.write_evaluation(1, {"acc1": 0.25})
  writer.close()
  for path in paths:
    assert lines(path) == [{"step": 1, "loss": 2.0}, {"step": 1, "eval": {"acc1": 0.25}}]


def test_weights_and_biases_is_an_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "wandb", None)
  with pytest.raises(ImportError, match=r"pip install 'mmjax\[wandb\]'"):
    WeightsAndBiases("project", {}, tmp_path)

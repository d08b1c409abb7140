import json

import pytest

from mmjax.train.metrics import Fanout, JsonLines, WeightsAndBiases


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

"""Tables from a file to a report: trained, resumed, evaluated with some modalities, loaded, and what is wrong said."""

import dataclasses
import json

import numpy as np
import pytest

from mmjax.data import DataConfig, DataError, Number, Present, Table, TableFile
from mmjax.encoders import FTTransformerConfig
from mmjax.errors import ConfigError, UserError
from mmjax.evaluate import check_ready, flatten, measure
from mmjax.evaluate.evaluator import Shared, measured
from mmjax.evaluate.examples import shown_examples
from mmjax.evaluators.table_columns import importance
from mmjax.experiment import Experiment, RunConfig
from mmjax.loading import load_run
from mmjax.models import PredictorConfig
from mmjax.objectives import Regress
from mmjax.report import write_report
from mmjax.settings import OptimizerConfig
from mmjax.train.loop import train

TOWER = FTTransformerConfig(width=8, depth=1, num_heads=2, mlp_dim=8)
pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  """price = 10 + 3 size - 4 (old); size is missing in a tenth of the rows; noise says nothing."""
  path, rng = tmp_path_factory.mktemp("table") / "houses.csv", np.random.default_rng(0)
  lines = ["size,noise,kind,price,class,split"]
  for number in range(160):
    size, noise, old = rng.normal(5, 2), rng.normal(), rng.random() < 0.5
    price = 10 + 3 * size - 4 * old
    cells = [f"{size:.3f}" if number % 10 else "", f"{noise:.3f}", "old" if old else "new", f"{price:.3f}"]
    lines.append(",".join([*cells, "dear" if price > 23 else "cheap", "validation" if number % 4 == 3 else "train"]))
  path.write_text("\n".join([*lines, "5,0,ruin,20,cheap,validation"]))
  return path


def experiment(file, workdir):
  columns = {
    "numbers": Table(numeric=("size", "noise")),
    "kinds": Table(categorical=("kind",)),
    "target": Number("price"),
  }
  names = ("numbers", "kinds")
  return Experiment(
    data=DataConfig(source=TableFile(path=str(file)), columns=columns, dir=str(workdir / "data")),
    model=PredictorConfig(towers=dict.fromkeys(names, TOWER), modality_dropout=0.2),
    objectives=(Regress(inputs=names),),
    optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=5, weight_decay=0.0, schedule="constant"),
    run=RunConfig(workdir=workdir, steps=60, batch_size=32, log_every=20, tensorboard=False),
  )


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    import jax

    first = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *_: first)
    return train(experiment(file, tmp_path_factory.mktemp("run"))).run


def test_a_number_is_learned_from_two_tables(trained, file):
  lines = [json.loads(line) for line in (trained.workdir / "metrics.jsonl").read_text().splitlines()]
  assert lines[0]["chance"] == 1 and lines[-1]["loss"] < 0.6
  loaded = load_run(trained.workdir)
  assert loaded.experiment.model.towers["kinds"].categories == (2,) and loaded.fitted == trained.fitted
  results = measure(loaded)
  found = flatten(results)
  assert sorted(found) == sorted(measured(loaded.experiment))
  assert found[f"{file}_numbers/r2"] > 0.6
  assert found[f"{file}_only_numbers/r2"] > found[f"{file}_only_kinds/r2"] + 0.2
  assert results[0]["n"] == 41 and results[0]["chance"]["r2"] < 0.05


def test_the_column_that_matters_is_found_and_the_report_shows_it(trained):
  examples = shown_examples(trained, Shared())
  rises = importance(trained, examples, "numbers", 3).mean(1)
  assert rises[0] > 0.3 > 10 * abs(rises[1])
  page = write_report(trained.workdir, trained).read_text(encoding="utf-8")
  assert "Which columns of numbers matter" in page and "Predicted numbers" in page
  (row,) = (row for row in page.split("<tr>") if row.startswith("<td>kind</td>"))
  assert "<td>0%</td><td>1</td></tr>" in row  # the ruin is unknown


def test_a_loaded_run_predicts_with_whatever_is_there(trained):
  rows = [{"size": 5, "noise": 0}, {"size": 9.0}]
  kinds = [{"kind": "old"}, {"kind": "a castle"}]
  both, some = trained.predict({"numbers": rows, "kinds": kinds}), trained.predict({"numbers": rows})
  assert both.shape == (2,) and both[1] > both[0] + 5 and 10 < both[0] < 30
  assert np.abs(some - both).min() > 1e-3
  np.testing.assert_array_equal(trained.predict(rows), some)
  with pytest.raises(UserError, match="reads numbers and kinds: pass as many items of each"):
    trained.predict({"numbers": rows, "other": rows})
  with pytest.raises(UserError, match="has no objective that classifies"):
    trained.classify(rows)
  for images in ([np.zeros((8, 8, 3), np.uint8)], np.zeros((1, 8, 8, 3), np.float32)):
    with pytest.raises(UserError, match=r"has no images; its columns are numbers, .*: use run.encode\(COLUMN, items\)"):
      trained.encode_image(images)


def test_a_run_resumes_with_its_scales_only(trained, file, tmp_path):
  other = tmp_path / "other.csv"
  other.write_text(file.read_text().replace(",old,", ",aged,"))
  again = experiment(file, trained.workdir)
  with pytest.raises(DataError, match="The column 'kinds' learned other values than those in .*columns.json"):
    train(dataclasses.replace(again, data=dataclasses.replace(again.data, source=TableFile(path=str(other)))))


def test_a_column_that_vanished_or_changed_is_said_before_the_first_step(file, tmp_path):
  broken = tmp_path / "broken.csv"
  broken.write_text(file.read_text().replace("size,noise", "size,nois"))
  with pytest.raises(DataError, match=r"field 'noise'; the record '.*broken.csv, row 1' .* Did you mean 'nois'"):
    train(experiment(broken, tmp_path / "a"))
  broken.write_text(file.read_text() + "\nbig,0,old,20,cheap,validation")
  with pytest.raises(DataError, match=r"broken.csv, row 162: the field 'size' is 'big', not a number"):
    train(experiment(broken, tmp_path / "b"), checks=(check_ready,))
  with_present = experiment(file, tmp_path / "c")
  columns = with_present.data.columns | {"present": Present(("numbers", "kinds"))}
  with pytest.raises(ConfigError, match="objective regress does not read it, but the data has a column 'present'"):
    train(dataclasses.replace(with_present, data=dataclasses.replace(with_present.data, columns=columns)))

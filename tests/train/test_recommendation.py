"""Recommendation from a file to a report: trained, evaluated with floors and cold items; what is wrong is said."""

import dataclasses

import numpy as np
import pytest

from mmjax.data import DataConfig, DataError, Ids, InteractionFile, Reading, TableFile
from mmjax.encoders import EmbeddingBagConfig
from mmjax.errors import ConfigError
from mmjax.evaluate import check_ready, flatten, measure
from mmjax.evaluate.evaluator import Shared, measured
from mmjax.evaluators import EvaluationConfig, Recommendations
from mmjax.evaluators.recommendations import embeddings, interactions, targets
from mmjax.experiment import Experiment, RunConfig
from mmjax.loading import load_run
from mmjax.models import RecommenderConfig
from mmjax.objectives import SampledSoftmax
from mmjax.report import write_report
from mmjax.settings import OptimizerConfig
from mmjax.train.loop import train

pytestmark = pytest.mark.usefixtures("one_device")
ITEMS, WALK = 16, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Each user goes from one item to the next one of 16 in a circle; the kind of an item is its name's last letter."""
  folder, rng = tmp_path_factory.mktemp("walks"), np.random.default_rng(0)
  lines = [
    f"u{user},i{(start + step) % ITEMS},{step}"
    for user, start in enumerate(rng.integers(0, ITEMS, 160))
    for step in range(WALK)
  ]
  (folder / "log.csv").write_text("\n".join(["user,item,time", *lines]))
  (folder / "items.csv").write_text("\n".join(["item,title", *(f"i{n},The {n}. item" for n in range(ITEMS))]))
  return folder


def experiment(folder, workdir, **source):
  settings = dict(path=str(folder / "log.csv"), items=TableFile(str(folder / "items.csv")), history=3, other=True)
  data = InteractionFile(**settings | source)
  bag = EmbeddingBagConfig(width=8)
  towers = {"history": dataclasses.replace(bag, length=3), "item": bag}
  return Experiment(
    data=DataConfig(source=data, dir=str(workdir / "data")),
    model=RecommenderConfig(towers=towers, embed_dim=8),
    objectives=(SampledSoftmax(inputs=("history", "item", "item2"), mixed=True, seen="history", slots=64),),
    optimizer=OptimizerConfig(learning_rate=2e-2, warmup_steps=5, weight_decay=0.0, schedule="constant"),
    evaluation=EvaluationConfig(evaluators={"recommendations": Recommendations(cutoffs=(1, 3), neighbours=4)}),
    run=RunConfig(workdir=workdir, steps=120, batch_size=64, log_every=40, tensorboard=False),
  )


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    import jax

    first = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *_: first)
    return train(experiment(folder, tmp_path_factory.mktemp("run"), cold=0.2), checks=(check_ready,)).run


def test_the_next_item_is_found_beyond_the_floors_and_a_cold_one_is_not(trained, folder):
  loaded = load_run(trained.workdir)
  results = {result["dataset"].removeprefix(str(folder / "log.csv")): result for result in measure(loaded)}
  found = flatten(results.values())
  assert sorted(found) == sorted(measured(loaded.experiment)) and list(results) == [
    "", "_popularity", "_item_knn", "_latest_knn", "_tail", "_cold",
  ]  # fmt: skip
  source = loaded.experiment.data.source
  log = source.interactions(Reading())
  warm = 1 - log.cold[log.item[log.last]].mean()
  assert 0 < log.cold.sum() < 5
  assert loaded.experiment.objectives[0].items == ITEMS - log.cold.sum() == len(loaded.fitted["item"]["ids"])
  own, popular = results[""], results["_popularity"]
  assert own["metrics"]["hit_rate@1"] > 0.9 * warm > popular["metrics"]["hit_rate@1"] + 0.4
  assert own["n"] == 160 and own["gallery"] == ITEMS and own["chance"]["hit_rate@1"] == pytest.approx(1 / 11)
  assert own["floor"] == results["_item_knn"]["metrics"] and own["metrics"]["coverage@1"] > 0.6
  assert results["_cold"]["n"] == round(160 * (1 - warm)) and results["_cold"]["metrics"]["hit_rate@1"] < 0.2


def test_ranks_are_those_of_all_scores_of_items_that_the_user_does_not_have(trained):
  shared, evaluator = Shared(), trained.experiment.evaluation.evaluators["recommendations"]
  own = evaluator._own(trained, shared)
  log = interactions(trained, shared)
  examples = log.split("validation")
  users, items = embeddings(trained, _Examples(examples), log.catalogue())
  for row in range(0, 160, 40):
    record = examples[row]
    earlier = {log.items.names.index(log.items.names[item]) for item in log.item[log.user == row][:-1]}
    scores = {item: users[row] @ items[item] for item in range(ITEMS) if item not in earlier}
    assert own.sizes[row] == len(scores) == ITEMS - WALK + 1
    assert own.rank[row] == 1 + sum(score > scores[record["concept"]] + 1e-6 for score in scores.values())
  assert targets(_Examples(examples)).tolist() == log.item[log.last].tolist()


class _Examples(list):
  """Examples as evaluators have them."""

  features = ("history", "item", "item2")

  @property
  def records(self):
    return self


def test_the_report_shows_titles(trained):
  page = write_report(trained.workdir, trained).read_text(encoding="utf-8")
  assert "item kNN" in page and "<th>held out</th>" in page and "The 3. item" in page


def test_what_does_not_fit_is_said_before_the_first_step(folder, tmp_path):
  right = experiment(folder, tmp_path)
  columns = dict(right.data.source.columns) | {"history": Ids("history", names="item", length=2)}
  data = dataclasses.replace(right.data, columns=columns)
  with pytest.raises(ConfigError, match=r"the column 'history' gives int32 \[2\] a row, and the model's tower takes"):
    train(dataclasses.replace(right, data=data))
  plain = dataclasses.replace(right.data, source=dataclasses.replace(right.data.source, other=False))
  with pytest.raises(ConfigError, match="sampled_softmax reads 'item2', which no column"):
    train(dataclasses.replace(right, data=plain))
  table = dataclasses.replace(right.data, source=TableFile(str(folder / "log.csv")), columns=right.data.source.columns)
  with pytest.raises(DataError, match=r"the column 'history' \(Ids\) reads the field 'history'"):
    train(dataclasses.replace(right, data=table))

"""The study of fine-tuning on emoji runs, tiny; its variants train what they say."""

import dataclasses
import json
from pathlib import Path

import pytest

from mmjax.study import main, members

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  import finetune_emoji

  monkeypatch.setattr(finetune_emoji, "from_package", lambda name: f"weights of {name}")
  return finetune_emoji


def test_variants_train_what_they_say(script):
  head, lora, everything, scratch = (each.experiment for each in members(script.STUDY, script.EXPERIMENT))
  assert {each.pretrained.path for each in (head, lora, everything)} == {"weights of efficientnet-lite0"}
  assert scratch.pretrained.path is None and scratch.model.towers["image"].norm == "group"
  assert (head.optimizer.top_layers, lora.adapter.rank, everything.optimizer.layer_decay) == (0, 8, 0.75)
  assert lora.optimizer.top_layers is everything.optimizer.top_layers is None and not everything.adapter.rank
  assert set(head.evaluation.evaluators) == {"classes", "probe", "pixels"}


def test_a_variant_runs(script, tmp_path, one_device):
  """From scratch, because it needs no package. It has the probes of the features and of the pixels here."""

  def change(experiment):
    changed = script.scratch(experiment)
    evaluation = dataclasses.replace(
      changed.evaluation, evaluators={"classes": script.ClassAccuracy(), **script.PROBES}
    )
    tower = dataclasses.replace(changed.model.towers["image"], image_size=32, width=0.1)
    model = dataclasses.replace(changed.model, towers={"image": tower})
    return dataclasses.replace(changed, model=model, evaluation=evaluation)

  study = dataclasses.replace(script.STUDY, variants=(script.Variant("scratch", change),), reports=False)
  where = f"--run.workdir {tmp_path} --data.dir {tmp_path}".split()
  tiny = "--run.steps 1 --run.batch-size 8 --data.source.limit 60".split()
  with pytest.raises(SystemExit) as stop:
    main(study, script.EXPERIMENT, arguments=["train", *where, *tiny])
  assert stop.value.code == 0
  results = json.loads((tmp_path / "scratch" / "seed0" / "results.json").read_text())
  names = [result["dataset"].removeprefix("emoji_groups_") for result in results]
  assert names == ["classes", "linear", "neighbours", "linear_pixels", "neighbours_pixels"]
  asked = [metric.partition("/")[0].removeprefix("emoji_groups_") for metric in script.STUDY.metrics.values()]
  assert set(asked) <= set(names)
  assert (tmp_path / "comparison.md").exists()

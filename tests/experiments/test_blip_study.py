"""The study of BLIP, tiny: a captioner and a filter mend the captions that the second model is trained on."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from mmjax.evaluators import CapFilt, EvaluationConfig
from mmjax.evaluators.capfilt import Judged
from tests.experiments.tiny_study import call

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_device")


def test_the_second_round_of_blip_is_trained_on_what_captioner_and_filter_keep(options, tmp_path, monkeypatch, capsys):
  monkeypatch.syspath_prepend(str(ROOT / "experiments"))
  script = importlib.import_module("blip_emoji")
  monkeypatch.setattr("mmjax.evaluators.capfilt.judge_captions", kept_but_the_first)
  whole = ["--data.source.groups"]  # of 40 emoji, one group leaves nothing to evaluate
  small = "--objectives.0.queue-size 24 --objectives.1.group 2 --data.tokenizer.vocab-size 300".split()
  arguments = [*options, *whole, *small, "--run.workdir", str(tmp_path)]
  small_contrast = dataclasses.replace(script.CONTRAST, queue_size=24)
  small_match = dataclasses.replace(script.MATCH, group=2)
  variants = list(script.STUDY.variants)
  variants[3] = dataclasses.replace(variants[3], change=script.tuned(small_contrast, small_match))
  control = variants.pop(1)  # trained as CapFilt is, on the captions that CapFilt has to work with

  def mix_and_mend(experiment):
    path = experiment.data.captions_from.replace("mended", "mixed")
    control.prepare(dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, captions_from=path)))
    script.mend(experiment)

  variants[3] = dataclasses.replace(variants[3], prepare=mix_and_mend)
  metrics = {name: metric for name, metric in script.STUDY.metrics.items() if "R@1" in name or "CapFilt" in name}
  del metrics["the same re-ranked, R@1"]
  study = dataclasses.replace(script.STUDY, variants=tuple(variants), metrics=metrics, reports=False)
  quick = {"emoji": script.EXPERIMENT.evaluation.evaluators["emoji"], "capfilt": CapFilt()}  # few programs to compile
  experiment = dataclasses.replace(script.EXPERIMENT, evaluation=EvaluationConfig(evaluators=quick))
  assert call(study, experiment, "train", *arguments) == 0
  shown = capsys.readouterr().out
  trained = [variant.name for variant in study.variants if variant.name != "captioner"]  # it embeds nothing to compare
  assert all(f"| {name} | 16 | 2 |" in shown for name in trained)
  assert shown.count(" 0 of the model initialised at random") == 2 and "found by the filter, AUC" in shown
  read = lambda name: [json.loads(line) for line in (tmp_path / f"{name}0.jsonl").read_text().splitlines()]
  clean, mixed, mended = read("clean"), read("mixed"), read("mended")
  assert [row["index"] for row in clean] == list(range(0, len(mixed), script.CLEAN)) and clean == mixed[:: script.CLEAN]
  assert mended[0]["index"] == 1 and mended[0]["captions"] == {"name": ["kept"]} and len(mended) == len(mixed) - 1
  config = json.loads((tmp_path / "CapFilt" / "seed0" / "config.json").read_text())
  assert config["experiment"]["data"]["captions_from"] == str(tmp_path / "mended0.jsonl")


def kept_but_the_first(work, records, numbers):
  """In place of what two steps of training would keep, which is chance."""
  names = [run.workdir.parent.name for run in (work.captioner, work.judge)]
  assert names in (["captioner", "filter"], ["noisy", "noisy"])  # the data step, and the measurement of the first run
  for number in numbers:
    yield [Judged("name", "kept", number > 0)]

"""Evaluation while training, of runs that compare nothing: the best checkpoint is known by a metric that they have."""

import dataclasses
import json

import pytest

from mmjax.data import DataConfig, Scenes, Texts, TokenizerConfig
from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.errors import UserError
from mmjax.evaluate import measure
from mmjax.evaluate.evaluator import best_metric, measured
from mmjax.evaluate.results import flatten
from mmjax.evaluators import EvaluationConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models.flava import FlavaConfig
from mmjax.models.gpt import GptConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.nn.words import WordsConfig
from mmjax.objectives import Caption, Contrastive, MaskedPatches
from mmjax.report import write_report
from mmjax.train import evaluations, loop

SIZE = dict(width=16, depth=1, num_heads=2, mlp_dim=32)
IMAGE = ViTConfig(image_size=16, patch_size=8, pool="cls", **SIZE)
TOKENIZER = TokenizerConfig(vocab_size=400, max_length=16, bos_token="<bos>", sep_token="<sep>", mask_token="<mask>")


def gpt(directory) -> Experiment:
  data = DataConfig(source=Texts(examples=60), dir=directory, tokenizer=TOKENIZER)
  return Experiment(data=data, model=GptConfig(WordsConfig(**SIZE)), objectives=(Caption(image=False),))


def flava(directory) -> Experiment:
  text = bert_config(**SIZE, token_types=0, tanh_pool=False)
  model = FlavaConfig(image=IMAGE, text=text, fusion_depth=1, embed_dim=8)
  return Experiment(data=_scenes(directory), model=model, objectives=(MaskedPatches(rate=0.5, blocks=False),))


def clip(directory) -> Experiment:
  model = TwoTowerConfig(image=dataclasses.replace(IMAGE, pool="mean"), text=TextConfig(**SIZE), embed_dim=8)
  return Experiment(data=_scenes(directory), model=model, objectives=(Contrastive(),))


def _scenes(directory) -> DataConfig:
  return DataConfig(source=Scenes(text="caption", size=16, examples=120), dir=directory, tokenizer=TOKENIZER)


def tiny(experiment: Experiment, workdir, **evaluation) -> Experiment:
  run = RunConfig(workdir=workdir, steps=2, batch_size=16, log_every=1, save_every=1, keep_last=1, tensorboard=False)
  return dataclasses.replace(experiment, run=run, evaluation=EvaluationConfig(every=1, batch_size=32, **evaluation))


@pytest.mark.parametrize(
  ("make", "headline", "heading"),
  [
    (gpt, "texts_language/token_loss", "Language modelling"),
    (flava, "scenes_patches/patch_loss", "Hidden patches"),
    (clip, "mean_recall@1", "Retrieval"),
  ],
)
def test_a_run_is_evaluated_by_what_it_measures(make, headline, heading, data_dir, tmp_path):
  outcome = loop.train(tiny(make(data_dir), tmp_path))
  assert outcome.exit_status == 0 and outcome.run.experiment.evaluation.best_metric == headline
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  evaluations = [line["eval"] for line in lines if "eval" in line]
  assert len(evaluations) == 2 and all(headline in numbers for numbers in evaluations)
  results = measure(outcome.run)
  assert sorted(flatten(results)) == sorted(measured(outcome.run.experiment)) and results[0]["heading"] == heading
  assert best_metric(outcome.run.experiment) == headline
  assert f"<h3>{heading}</h3>" in write_report(tmp_path, outcome.run).read_text(encoding="utf-8")


def test_of_losses_the_lowest_is_the_best(data_dir, tmp_path, monkeypatch):
  losses = iter([1.0, 3.0, 2.0])
  monkeypatch.setattr(evaluations, "evaluate", lambda run: {"texts_language/token_loss": next(losses)})
  monkeypatch.setattr(evaluations, "flatten", lambda numbers: numbers)
  experiment = tiny(gpt(data_dir), tmp_path)
  loop.train(dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, steps=3)))
  assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [1, 3]


def test_an_unknown_best_metric_is_refused_before_anything_is_written(data_dir, tmp_path):
  experiment = tiny(gpt(data_dir), tmp_path / "run", best_metric="mean_recall@1")
  with pytest.raises(UserError, match="among the metrics: texts_language/token_loss, .* Did you mean 'texts_language/"):
    loop.train(experiment)
  assert not (tmp_path / "run").exists()

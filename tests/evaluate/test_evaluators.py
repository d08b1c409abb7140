"""Evaluators: what they say that they measure is what they measure, and a script's own one is treated as any other."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.catalogue import KINDS
from mmjax.choosing import chosen
from mmjax.encoders import ResNetConfig, ViTConfig
from mmjax.errors import ConfigError
from mmjax.evaluate import Evaluator, Shared, Table, check_ready, evaluate, flatten, make_result, measure
from mmjax.evaluate.evaluator import applying, best_metric, measured
from mmjax.evaluate.ngrams import Bigrams
from mmjax.evaluate.results import lower_is_better, table_of
from mmjax.evaluate.task import describe
from mmjax.evaluate.traits import compares
from mmjax.evaluators import (
  ClassifiedExamples,
  DrawnScenes,
  EvaluationConfig,
  FewShot,
  MatchedPairs,
  PairRetrieval,
  PairScoreRetrieval,
  Probe,
  ReconstructedImages,
  WrittenCaptions,
  built_in,
)
from mmjax.evaluators.hidden_patches import Guess, code_scores, pixel_scores
from mmjax.evaluators.language import entropy
from mmjax.experiment import Experiment, from_json, to_json
from mmjax.kinds import of_base
from mmjax.models import GptConfig, SharedSpaceConfig, TwoTowerConfig, ViltConfig
from mmjax.objectives import Answer, AnswerText, Caption, MaskedBoth, MaskedPatches, MaskedWords, Matching, Relevance
from mmjax.objectives.losses.patches import normalize_patches, patchify
from mmjax.report import Section, print_table, write_report
from mmjax.report.report import _lead, _metrics, _results
from mmjax.report.rows import rows
from mmjax.report.terminal import plain
from mmjax.types import Encoded

sys.path.insert(0, str(Path(__file__).parent))
from fakes import emoji_run
from knowing import knowing_run
from test_multimodal import scenes
from test_suite import folder_run

OLD = Path(__file__).parent / "old_results"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  return tmp_path_factory.mktemp("scenes")


def knowing(directory, text, objectives, **settings):
  return knowing_run(scenes(directory, text), objectives, batch_size=32, **settings)


def noisy(directory):
  run = knowing(directory, "caption", (Matching(), Caption()), beams=1)
  data = dataclasses.replace(run.experiment.data, corrupt_captions=0.4)
  return dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, data=data))


RUNS = {
  "emoji": lambda directory: emoji_run(60),
  "folder": folder_run,
  "questions": lambda directory: knowing(directory, "question", (Answer(), AnswerText(), Relevance())),
  "captions": lambda directory: knowing(
    directory, "caption", (Matching(), Caption(), MaskedWords()), rerank=4, beams=1
  ),
  "matching alone": lambda directory: knowing(directory, "caption", (Matching(hard=False),), rerank=0),
  "masked both": lambda directory: knowing(directory, "caption", (MaskedBoth(),)),
  "noise": noisy,
}


@pytest.mark.parametrize("name", RUNS)
def test_what_is_measured_is_known_before(name, directory):
  run = RUNS[name](directory)
  names = measured(run.experiment)
  assert sorted(names) == sorted(flatten(evaluate(run))) and len(names) == len(set(names))
  assert best_metric(run.experiment) == names[0]
  assert (names[0] == "mean_recall@1") == compares(run.experiment)


@pytest.mark.parametrize("name", ["questions", "captions", "matching alone", "masked both", "noise"])
def test_what_can_be_measured_passes_the_checks_before(name, directory):
  run = RUNS[name](directory)
  for step in (0, 7):
    check_ready(dataclasses.replace(run, step=step, params={}))


def test_a_run_of_which_nothing_will_be_measured_says_so_before(directory, caplog):
  run = RUNS["questions"](directory)
  nothing = EvaluationConfig(evaluators={"mine": PairRetrieval()})
  check_ready(dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, evaluation=nothing)))
  assert "None of the evaluators of this run (mine) applies" in caplog.text


def test_every_evaluator_that_comes_with_mmjax_checks_what_it_needs():
  assert all(kind.check is not Evaluator.check for kind in of_base(Evaluator, KINDS))


def test_an_unknown_best_metric_is_answered_with_the_list_and_the_nearest_name(directory):
  run = knowing(directory, "question", (Answer(), Relevance()))
  said = lambda name: dataclasses.replace(
    run.experiment, evaluation=dataclasses.replace(run.experiment.evaluation, best_metric=name)
  )
  assert best_metric(said(None)) == "scenes/vqa_accuracy" and best_metric(said("scenes_relevance/miou")).endswith(
    "miou"
  )
  with pytest.raises(ConfigError, match=r"metrics: scenes/vqa_accuracy, .*Did you mean 'scenes/vqa_accuracy'\?"):
    best_metric(said("vqa_accuracy"))
  nothing = dataclasses.replace(run.experiment, evaluation=EvaluationConfig(every=7, evaluators={"mine": Evaluator()}))
  with pytest.raises(ConfigError, match=r"nothing to measure every 7 steps \(evaluators: mine\)"):
    best_metric(nothing)


def test_shared_work_is_done_once():
  shared, calls = Shared(), []
  assert [shared.once("a", lambda: calls.append(1) or 5) for _ in range(3)] == [5, 5, 5] and calls == [1]
  run = emoji_run(60)
  first = applying(run.experiment)[0]
  first.run(run, shared)
  embedded = dict(run.embedded)
  assert len(first.sections(run, shared)) == 3 and run.embedded == embedded


def test_metrics_that_are_to_fall():
  assert all(
    map(
      lower_is_better,
      ("token_loss", "perplexity", "image_retrieval_median_rank", "mean_error", "milliseconds_per_image"),
    )
  )
  assert not any(map(lower_is_better, ("mean_recall@1", "miou", "cider", "vqa_accuracy")))


# Configuration.


def test_every_evaluator_that_comes_with_mmjax_is_listed_and_saved():
  # One reads the training images once more, one measures nothing, one names two columns of the script, and three are of
  # models that no other evaluator measures.
  by_choice = {Probe, ClassifiedExamples, PairScoreRetrieval, ReconstructedImages, DrawnScenes, FewShot}
  assert set(of_base(Evaluator, KINDS)) - by_choice == {type(each) for each in built_in().values()}
  assert from_json(json.loads(json.dumps(to_json(Experiment())))) == Experiment()
  assert hash(Experiment()) == hash(Experiment())


def test_settings_of_evaluators_on_the_command_line():
  from mmjax.cli import Call, parse

  options = "--evaluation.evaluators.captions.beams 5 --evaluation.evaluators.hidden-words.masked-words red green"
  found = parse("train", Call(Experiment(), options.split())).evaluation.evaluators
  assert found["captions"] == WrittenCaptions(beams=5) and found["hidden_words"].masked_words == ("red", "green")
  assert list(found) == list(built_in())
  some, _ = chosen(Experiment(), ["--evaluation.evaluators", "matching=matched_pairs"], KINDS)
  assert some.evaluation.evaluators == {"matching": MatchedPairs()}


def test_settings_of_before_evaluators_were_objects():
  old = {"every": 5, "rerank": 4, "beams": 1, "java_metrics": True, "masked_words": ["red"], "attention_layer": -1}
  old |= {"templates": ["{}"], "min_class_size": 3, "best_metric": "mean_recall@1"}
  found = from_json({"evaluation": old}).evaluation
  evaluators: Any = found.evaluators
  assert found.every == 5 and found.best_metric is None and list(evaluators) == list(built_in())
  assert evaluators["captions"] == WrittenCaptions(beams=1, java_metrics=True) and evaluators["matching"].rerank == 4
  assert evaluators["hidden_words"].masked_words == ("red",) and evaluators["attention"].attention_layer == -1
  assert (evaluators["emoji"].templates, evaluators["emoji"].min_class_size) == (("{}",), 3)
  assert (
    from_json({"evaluation": {"best_metric": "scenes/vqa_accuracy"}}).evaluation.best_metric == "scenes/vqa_accuracy"
  )


# A script's own evaluator.


@dataclasses.dataclass(frozen=True)
class Brightness(Evaluator):
  """A number of its own, with a table and a section of its own; another without chance."""

  times: float = 2.0

  def applies(self, experiment):
    return compares(experiment)

  def metrics(self, experiment):
    return ["light/mean_error", "light/spread"]

  def run(self, run, shared):
    found = {"mean_error": 0.25 * self.times, "spread": 0.125}, {"mean_error": 1.0}
    table = Table("light", "Light & dark")
    return [make_result(run, "light", "brightness", "How light", range(3), found, table=table)]

  def sections(self, run, shared):
    return [Section("light", "Lamps", "<p>a lamp</p>")]


def test_an_evaluator_of_a_script_s_own_is_measured_written_and_shown(tmp_path, capsys, directory):
  evaluation = EvaluationConfig(evaluators={"light": Brightness(), **built_in()})
  run = folder_run(tmp_path)
  run = dataclasses.replace(
    run, workdir=tmp_path, experiment=dataclasses.replace(run.experiment, evaluation=evaluation)
  )
  assert best_metric(run.experiment) == "light/mean_error"
  assert sorted(measured(run.experiment)) == sorted(flatten(evaluate(run)))
  results = measure(run)
  assert json.loads((tmp_path / "results.json").read_text())[0]["metrics"] == {"mean_error": 0.5, "spread": 0.125}
  print_table(results)
  assert "How light (n=3): mean error 0.500 (chance 1.000), spread 0.125\n" in capsys.readouterr().out
  text = write_report(tmp_path, run).read_text(encoding="utf-8")
  assert "<h3>Light &amp; dark</h3>" in text and "How light" in text and "0.125" in text
  assert '<section id="light"><h2>Lamps</h2><p>a lamp</p></section>' in text
  assert text.index("<h3>Retrieval</h3>") < text.index("<h3>Light &amp; dark</h3>")  # after the tables of mmjax


def test_an_evaluator_of_a_script_s_own_is_configured_as_any_other():
  experiment = Experiment(evaluation=EvaluationConfig(evaluators={"light": Brightness(times=3.0)}))
  fields = json.loads(json.dumps(to_json(experiment)))
  assert from_json(fields, kinds=(Brightness,)) == experiment
  with pytest.raises(ConfigError, match=r"unknown evaluator .Brightness.*evaluators\['light'\]"):
    from_json(fields)
  added, _ = chosen(Experiment(), ["--evaluation.evaluators", "light=brightness"], (*KINDS, Brightness))
  assert added.evaluation.evaluators == {"light": Brightness()}


# Results of other versions.


def test_old_results_give_the_report_that_they_gave():
  """The files were written by the version of 2026-11-29, before results named their tables."""
  results = json.loads((OLD / "results.json").read_text(encoding="utf-8"))
  assert not any("table" in result for result in results)
  lines, history = _metrics(OLD / "metrics.jsonl")
  split = lambda html: html.replace("><", ">\n<")
  body = f'<section id="results"><h2>Results</h2>{_results(results, history)}</section>'
  assert split(body) + "\n" == (OLD / "results.html").read_text(encoding="utf-8")
  assert split(_lead({}, lines, results, None)) + "\n" == (OLD / "lead.html").read_text(encoding="utf-8")
  assert plain(list(rows(results))) == (OLD / "lines.txt").read_text(encoding="utf-8").splitlines()


def test_a_result_of_an_unknown_task_has_a_table_of_its_own():
  result = {"title": "Depth", "dataset": "depth", "task": "depth_estimation", "n": 2, "metrics": {"acc": 0.5}}
  assert table_of(result) == Table("depth_estimation", "Depth estimation")
  (row,) = rows([result])
  assert (row.heading, row.cells[0].value, row.cells[0].chance) == ("Depth estimation", 0.5, None)
  assert "<h3>Depth estimation</h3>" in _results([result], {}) and "None" not in _results([result], {})
  assert plain([row]) == ["Depth (n=2): acc 0.500"]
  mixed = {**result, "metrics": {"image_retrieval_recall@1": 0.5, "acc": 0.25}}
  assert [[cell.metric for cell in row.cells] for row in rows([mixed])] == [["image_retrieval_recall@1"], ["acc"]]


# Language modelling and hidden patches.


@dataclasses.dataclass(frozen=True)
class _Says:
  """Logits of the next word, whatever was said before."""

  shares: tuple[float, ...]


class Unigrams(nn.Module):
  config: Any
  says: _Says

  def decode(self, ids, context, *, rng=None, cache=None, text=None):
    assert context is None
    return jnp.broadcast_to(jnp.log(jnp.array(self.says.shares)), (*ids.shape, len(self.says.shares)))


def test_language_modelling_by_a_model_that_knows_frequencies_alone(directory):
  run = knowing(directory, "caption", (Caption(image=False),))
  ids = np.concatenate([row[1:][row[1:] != run.tokenizer.pad_id] for row in _texts(run)])
  size = run.model.config.text.vocab_size
  counts = np.bincount(ids, minlength=size)
  shares = counts / counts.sum()
  known = -float(sum(share * math.log(share) for share in shares[shares > 0]))
  assert entropy(ids) == pytest.approx(known)
  for said, loss in ((np.full(size, 1 / size), math.log(size)), (np.maximum(shares, 1e-30), known)):
    model = Unigrams(run.model.config, _Says(tuple(said.tolist())))
    (result,) = evaluate(dataclasses.replace(run, model=model, params={}))
    assert result["metrics"] == {
      "token_loss": pytest.approx(loss, rel=1e-5),
      "perplexity": pytest.approx(math.exp(loss), rel=1e-4),
    }
    assert result["chance"] == {"token_loss": pytest.approx(known), "perplexity": pytest.approx(math.exp(known))}
    assert result["heading"] == "Language modelling"
    seen = Bigrams(_texts(run, "train"), pad_id=run.tokenizer.pad_id, vocab_size=run.tokenizer.vocab_size)
    bigrams = seen.losses(_texts(run), pad_id=run.tokenizer.pad_id).mean()
    assert result["floor"] == {"token_loss": pytest.approx(bigrams), "perplexity": pytest.approx(math.exp(bigrams))}
    assert result["floor_is"] == "a bigram model of the training texts" and bigrams < known
  assert measured(run.experiment) == ["scenes_language/token_loss", "scenes_language/perplexity"]


def _texts(run, split="validation"):
  from mmjax.data import make_source

  source = make_source(run.experiment.data, split)
  return run.tokenizer([source[place]["captions"]["name"][0] for place in range(len(source))])


class Constant(nn.Module):
  """Guesses the same of every patch."""

  config: Any
  said: tuple[float, ...]

  def encode_patches(self, images, hidden, *, rng=None):
    assert rng is None  # nothing is dropped
    return Encoded(jnp.zeros((*hidden.shape, 1)), jnp.ones(hidden.shape, bool), jnp.zeros((len(images), 1)))

  def patch_logits(self, tokens, *, fused):
    assert not fused
    return jnp.broadcast_to(jnp.array(self.said), (*tokens.shape[:2], len(self.said)))


@pytest.mark.parametrize("target", ["pixels", "normalized"])
def test_guessing_the_mean_hidden_patch_scores_chance(directory, target):
  run = knowing(directory, "caption", (MaskedPatches(rate=0.5, blocks=False, target=target),))
  zeros = dataclasses.replace(run, model=Constant(run.model.config, (0.0,) * (8 * 8 * 3)), params={})
  (result,) = evaluate(zeros)
  truth = patchify(np.asarray(run.params["image"]).reshape(-1, 16, 16, 3), 8)
  truth = np.asarray(normalize_patches(truth) if target == "normalized" else truth)
  guess = Guess(MaskedPatches(rate=0.5, blocks=False, target=target))
  batch = {
    "image": np.asarray(run.params["image"]).reshape(-1, 16, 16, 3),
    "index": np.arange(len(truth), dtype=np.int32),
  }
  hidden = np.asarray(nn.apply(guess, zeros.model)({"params": {}}, batch)["hidden"])
  assert (hidden.sum(1) == 2).all() and len({row.tobytes() for row in hidden}) > 1
  mean = truth[hidden].mean(0)
  assert result["metrics"]["patch_loss"] == pytest.approx(np.square(truth[hidden]).mean(), rel=1e-5)
  assert result["chance"]["patch_loss"] == pytest.approx(np.square(truth[hidden] - mean).mean(), rel=1e-5)
  (best,) = evaluate(dataclasses.replace(zeros, model=Constant(run.model.config, tuple(mean.tolist()))))
  assert best["metrics"]["patch_loss"] == pytest.approx(best["chance"]["patch_loss"], rel=1e-5)
  assert measured(run.experiment) == ["scenes_patches/patch_loss"] and best["heading"] == "Hidden patches"


def test_guessing_the_codes_frequencies_scores_chance(directory, tmp_path):
  codebook = np.random.default_rng(0).normal(size=(5, 8 * 8 * 3)).astype(np.float32)
  np.save(tmp_path / "codes.npy", codebook)
  run = knowing(directory, "caption", (MaskedPatches(rate=0.5, codebook=str(tmp_path / "codes.npy")),))
  (uniform,) = evaluate(dataclasses.replace(run, model=Constant(run.model.config, (0.0,) * 5), params={}))
  assert uniform["metrics"]["patch_loss"] == pytest.approx(math.log(5), rel=1e-5)
  assert 0 < uniform["chance"]["patch_loss"] < math.log(5) and 0.2 < uniform["chance"]["code_accuracy"] < 1
  assert measured(run.experiment) == ["scenes_patches/patch_loss", "scenes_patches/code_accuracy"]
  found = {
    "hidden": np.array([[True, True, False], [True, True, False]]),
    "loss": np.array([[1.0, 2.0, 99.0], [3.0, 4.0, 99.0]], np.float32),
    "right": np.array([[True, False, True], [False, False, True]]),
    "code": np.array([[1, 1, 9], [1, 2, 9]]),
  }
  metrics, chance = code_scores([found])
  assert metrics == {"patch_loss": 2.5, "code_accuracy": 0.25} and chance["code_accuracy"] == 0.75
  assert chance["patch_loss"] == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_pixel_scores_do_not_depend_on_the_batches():
  rng = np.random.default_rng(0)
  truth, hidden = rng.normal(size=(6, 4, 3)), np.arange(24).reshape(6, 4) % 2 == 0
  kept = truth * hidden[..., None]
  whole = {"hidden": hidden, "loss": rng.random((6, 4)), "sum": kept.sum(1), "squares": np.square(kept).sum(1)}
  one = pixel_scores([whole])
  two = pixel_scores([jax.tree.map(lambda leaf: leaf[:1], whole), jax.tree.map(lambda leaf: leaf[1:], whole)])
  for first, second in zip(one, two, strict=True):
    assert first == pytest.approx(second, rel=1e-12)
  assert one[1]["patch_loss"] == pytest.approx(truth[hidden].var(0).mean())


@pytest.mark.parametrize(
  ("model", "said"),
  [
    (TwoTowerConfig(image=ViTConfig(width=16, depth=2, num_heads=2, image_size=32, patch_size=8)), "ViT-16x2-p8-32px"),
    (TwoTowerConfig(image=ResNetConfig(image_size=64)), "ResNet-64-64px"),
    (ViltConfig(), "Vilt-768x12-p32-384px"),
    (GptConfig(), "Gpt-768x12"),
    (SharedSpaceConfig(), "SharedSpace"),
  ],
)
def test_every_network_has_a_word(model, said):
  assert describe(model) == said

"""Bagging, boosting and stacking: what is learned from which examples."""

import dataclasses
import io

import jax
import numpy as np
import pytest
from PIL import Image as PILImage
from sklearn.datasets import load_iris
from sklearn.ensemble import AdaBoostClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mmjax.data import AugmentationConfig, ClassLabel, DataConfig, Image, Source
from mmjax.ensembles import Predictions, boost, out_of_sample, predictions, samme, save_run, snapshots, stack
from mmjax.ensembles.combining import members
from mmjax.errors import CheckpointError, ConfigError
from mmjax.evaluate.calibration import softmax
from mmjax.experiment import Experiment, RunConfig
from mmjax.loading import load_run
from mmjax.models import EnsembleConfig
from mmjax.objectives import Classify, ClassifyMembers
from mmjax.objectives.losses.resampling import sample_counts
from mmjax.settings import OptimizerConfig
from mmjax.train import train
from tests.ensembles.tiny import SMALL, classifier

ROWS, LABELS = load_iris(return_X_y=True)


@dataclasses.dataclass(frozen=True)
class Colours(Source):
  """Images of three colours, with noise."""

  @property
  def columns(self):
    return {"image": Image(), "label": ClassLabel()}

  def open(self, split, reading):
    rng, records = np.random.default_rng(0 if split == "train" else 1), []
    for number in range(24):
      pixels = np.clip(rng.normal(80, 60, (8, 8, 3)), 0, 255)
      pixels[..., number % 3] += 60
      png = io.BytesIO()
      PILImage.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(png, "PNG")
      records.append(
        {"id": f"{split}/{number}", "concept": number, "image": png.getvalue(), "label": "abc"[number % 3]}
      )
    return records


def experiment(workdir, **changes):
  data = DataConfig(
    source=Colours(),
    augmentation=AugmentationConfig(crop_scale=(1, 1), rotation=0, brightness=0, contrast=0, saturation=0),
  )
  run = RunConfig(workdir=workdir, steps=6, batch_size=8, log_every=1, tensorboard=False, save_every=3, keep_last=9)
  optimizer = OptimizerConfig(learning_rate=1e-2, warmup_steps=0, cycles=2)
  return dataclasses.replace(
    Experiment(data=data, model=SMALL, objectives=(Classify(),), optimizer=optimizer, run=run), **changes
  )


def test_samme_is_that_of_scikit_learn():
  def learn(number, weights):
    stump = DecisionTreeClassifier(max_depth=1, random_state=0).fit(ROWS, LABELS, sample_weight=weights / weights.sum())
    return stump, stump.predict(ROWS)

  found = samme(learn, LABELS, classes=3, rounds=6)
  theirs = AdaBoostClassifier(DecisionTreeClassifier(max_depth=1, random_state=0), n_estimators=6).fit(ROWS, LABELS)
  np.testing.assert_allclose(found.weights, theirs.estimator_weights_, rtol=1e-6)
  np.testing.assert_allclose(found.errors, theirs.estimator_errors_, rtol=1e-6)


def test_samme_ends_with_a_member_that_is_perfect_or_no_better_than_chance():
  guesses = iter([np.where(LABELS == 2, 1, LABELS), np.zeros_like(LABELS)])
  found = samme(lambda number, weights: (number, next(guesses)), LABELS, classes=3, rounds=5)
  assert found.members == (0,) and len(found.errors) == 2 and found.errors[1] > 2 / 3
  assert samme(lambda number, weights: (number, LABELS), LABELS, classes=3, rounds=5).members == (0,)
  with pytest.raises(ConfigError, match="no better than chance: train it for more steps"):
    samme(lambda number, weights: (number, (LABELS + 1) % 3), LABELS, classes=3, rounds=5)


@pytest.fixture(scope="module")
def held_out():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 90)
  ids = tuple(map(str, range(90)))
  logits = [2 * np.eye(3)[labels] * sharp + rng.normal(size=(90, 3)) for sharp in (1.0, 0.2)]
  return [Predictions(ids, labels, each, np.zeros(90, bool)) for each in logits]


def test_stacking_is_logistic_regression_on_what_the_models_say(held_out, tmp_path):
  runs = [classifier(seed, tmp_path / str(seed)) for seed in range(2)]
  shuffled = held_out[1].take(np.random.default_rng(1).permutation(90)[:80])  # the 80 that both have are used
  found = stack(runs, [held_out[0], shuffled], tmp_path / "stack", strength=2.0)
  kept = sorted(int(name) for name in shuffled.ids)
  rows = np.concatenate([np.log(softmax(each.logits[kept])) for each in held_out], axis=1)
  scaler = StandardScaler().fit(rows)
  model = LogisticRegression(C=0.5, tol=1e-8).fit(scaler.transform(rows), held_out[0].labels[kept])
  layer = found.params["stack_projection"]
  np.testing.assert_allclose(layer["kernel"], (model.coef_ / scaler.scale_).T, atol=2e-3)
  loaded = load_run(save_run(found).workdir)
  np.testing.assert_array_equal(loaded.params["stack_projection"]["kernel"], layer["kernel"])


def test_stacking_on_examples_that_a_model_has_seen_is_refused(held_out, tmp_path):
  runs = [classifier(seed, tmp_path / str(seed)) for seed in range(2)]
  seen = np.arange(90) == 7
  leaking = dataclasses.replace(held_out[1], seen=seen)
  with pytest.raises(ConfigError, match=r"was trained on 1 of the 90 examples, such as 7: stacking would trust"):
    stack(runs, [held_out[0], leaking], tmp_path / "stack")
  apart = [held_out[0].take(np.arange(45)), held_out[1].take(np.arange(45, 90))]
  with pytest.raises(ConfigError, match="no example was held out from all"):
    stack(runs, apart, tmp_path / "stack")


def test_members_are_trained_in_one_program_and_speak_for_the_examples_that_they_have_not_seen(tmp_path):
  folds = EnsembleConfig(models=(SMALL,) * 3)
  run = train(
    experiment(tmp_path / "folds", model=folds, objectives=(ClassifyMembers(sampling="folds"),)), kinds=(Colours,)
  ).run
  found = out_of_sample(run)
  assert len(found.ids) == 24 and not found.seen.any() and predictions(run, "train").seen.all()
  fold = np.asarray(sample_counts(np.arange(24, dtype=np.int32), members=3, sampling="folds", seed=0)).argmin(0)
  alone = [predictions(member, "train") for member in members(run)]
  expected = np.stack([softmax(alone[fold[place]].logits)[place] for place in range(24)])
  np.testing.assert_allclose(softmax(found.logits), expected, atol=1e-6)
  assert not np.allclose(softmax(alone[0].logits), softmax(alone[1].logits), atol=1e-3)
  with pytest.raises(ConfigError, match="every member of .* has seen all training examples"):
    out_of_sample(members(dataclasses.replace(run, experiment=experiment(tmp_path, model=folds)))[0])


def test_boosting_and_snapshots_are_runs_of_several_models(tmp_path):
  boosted = save_run(boost(experiment(tmp_path / "boosted"), 2, kinds=(Colours,)))
  loaded = load_run(boosted.workdir, kinds=(Colours,))
  assert loaded.experiment.model.combine == "vote" and loaded.experiment.data.source == Colours()
  jax.tree.map(np.testing.assert_array_equal, loaded.params, boosted.params)
  np.testing.assert_allclose(predictions(loaded).logits, predictions(boosted).logits, rtol=1e-6)
  first = np.load(tmp_path / "boosted" / "round_0" / "weights.npy")
  assert (first == 1).all()
  if len(loaded.experiment.model.models) == 2:
    weights = np.load(tmp_path / "boosted" / "round_1" / "weights.npy")
    wrong = predictions(load_run(tmp_path / "boosted" / "round_0", kinds=(Colours,)), "train")
    assert set(np.flatnonzero(weights > weights.min())) == set(np.flatnonzero(wrong.logits.argmax(1) != wrong.labels))
  taken = snapshots(tmp_path / "boosted" / "round_0", tmp_path / "snapshots", kinds=(Colours,))
  assert len(taken.experiment.model.models) == 2
  leaves = [
    jax.tree.leaves(load_run(tmp_path / "boosted" / "round_0", step=s, kinds=(Colours,)).params)[0] for s in (3, 6)
  ]
  np.testing.assert_array_equal(jax.tree.leaves(taken.params)[0], np.stack(leaves))
  with pytest.raises(CheckpointError, match="needs two or more"):
    snapshots(tmp_path / "boosted" / "round_0", tmp_path / "none", steps=(6,), kinds=(Colours,))

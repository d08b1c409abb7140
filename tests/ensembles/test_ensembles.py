"""Ensembles answer as their members do one by one, averages are averages, and both are runs that are saved and read."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from mmjax.ensembles import average, calibrated, combine, greedy_soup, interpolate, save_run
from mmjax.errors import CheckpointError, ConfigError
from mmjax.evaluate.calibration import best_temperature, calibration
from mmjax.interop import export_run, load_pretrained
from mmjax.loading import load_run
from mmjax.nn.norm import normalize
from tests.ensembles.tiny import CLASSES, IMAGES, OTHER, SMALL, SPACE, classifier, params


@functools.partial(jax.jit, static_argnums=(0, 1))
def applied(model, method, params, rows):
  return model.apply({"params": params}, rows, method=method)


def ask(run, method, rows):
  return applied(run.model, method, run.params, rows)


def class_logits(model, batch):
  return jax.nn.softmax(model.class_logits(model.encode(batch)))


def projected(model, batch):
  return model.project(model.encode(batch))


def probabilities(run):
  """Of the classes of IMAGES, without the ensemble's own code."""
  return np.asarray(ask(run, class_logits, {"image": IMAGES}))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  root = tmp_path_factory.mktemp("members")
  return [classifier(seed, root / f"member{seed}") for seed in range(3)]


@pytest.fixture(scope="module")
def each(runs):
  return np.stack([probabilities(run) for run in runs])


def test_probabilities_are_the_weighted_mean_of_those_of_any_members(runs, each, tmp_path):
  other = classifier(9, tmp_path / "other", OTHER)
  mixed = combine([runs[0], other, runs[1]], tmp_path / "mixed", weights=(1, 2, 1))
  np.testing.assert_allclose(probabilities(mixed), (each[0] + 2 * probabilities(other) + each[1]) / 4, atol=1e-6)
  voted = combine(runs, tmp_path / "voted", rule="vote", weights=(1, 1, 4))
  np.testing.assert_array_equal(probabilities(voted).argmax(1), each[2].argmax(1))  # it has the majority alone
  shares = np.eye(3)[each.argmax(2)].T @ np.array([1, 1, 4]) / 6
  np.testing.assert_allclose(probabilities(voted), shares.transpose(1, 0), atol=1e-5)


def test_an_ensemble_is_a_run_that_is_saved_exported_and_read(runs, each, tmp_path):
  found = save_run(combine(runs, tmp_path / "ensemble"))
  loaded = load_run(tmp_path / "ensemble")
  jax.tree.map(np.testing.assert_array_equal, loaded.params, found.params)
  np.testing.assert_allclose(probabilities(loaded), probabilities(found), rtol=1e-6)  # their arrays lie elsewhere
  assert loaded.classes == ("a", "b", "c")
  np.testing.assert_allclose(probabilities(loaded), each.mean(0), atol=1e-6)
  published = load_pretrained(export_run(loaded, "mmjax"))
  jax.tree.map(np.testing.assert_array_equal, published.params, found.params)
  np.testing.assert_allclose(probabilities(published), probabilities(found), rtol=1e-6)
  with pytest.raises(CheckpointError, match="holds a run already"):
    save_run(found)


def test_cosines_are_the_means_of_the_cosines_of_the_members(tmp_path):
  rng = np.random.default_rng(0)
  images = rng.standard_normal((4, 16, 16, 3)).astype(np.float32)
  ids = rng.integers(1, 63, (4, 8)).astype(np.int32)
  runs = [classifier(seed, tmp_path / str(seed), SPACE) for seed in range(2)]
  pair = combine(runs, tmp_path / "pair", weights=(3, 1))

  def cosines(run):
    unit = lambda method, rows: normalize(ask(run, method, rows))
    return np.asarray(unit("encode_image", images) @ unit("encode_text", ids).T)

  np.testing.assert_allclose(cosines(pair), 0.75 * cosines(runs[0]) + 0.25 * cosines(runs[1]), atol=1e-6)
  found = ask(pair, projected, {"image": images, "text": ids})
  np.testing.assert_allclose(found["image"] @ found["text"].T, cosines(pair), atol=1e-6)


def test_soups_are_averages_of_weights_and_the_greedy_one_adds_what_does_not_harm(runs, tmp_path):
  leaf = lambda run: np.asarray(run.params["class_projection"]["kernel"])
  uniform = average(runs, tmp_path / "uniform", weights=(1, 1, 2))
  np.testing.assert_allclose(leaf(uniform), (leaf(runs[0]) + leaf(runs[1]) + 2 * leaf(runs[2])) / 4, atol=1e-7)
  start, end = interpolate(runs[0], runs[1], 0, tmp_path / "0"), interpolate(runs[0], runs[1], 1, tmp_path / "1")
  np.testing.assert_array_equal(leaf(start), leaf(runs[0]))
  np.testing.assert_array_equal(leaf(end), leaf(runs[1]))
  goal = (leaf(runs[2]) + leaf(runs[0])) / 2
  soup = greedy_soup(runs, lambda run: -float(np.abs(leaf(run) - goal).sum()), tmp_path / "greedy")
  assert set(soup.chosen) == {0, 2} and soup.score > max(soup.scores)
  np.testing.assert_allclose(leaf(soup.run), goal, atol=1e-7)
  assert load_run(save_run(uniform).workdir).experiment.model == SMALL


def test_runs_that_do_not_fit_together_are_refused(runs, tmp_path):
  with pytest.raises(ConfigError, match=r"different models: model\.towers\.image\.width is 8 and 4"):
    average([runs[0], classifier(9, tmp_path / "other", OTHER)], tmp_path / "soup")
  renamed = {"label": {**CLASSES["label"], "classes": ["a", "b", "d"]}}
  with pytest.raises(ConfigError, match="the column 'label' learned different values"):
    combine([runs[0], dataclasses.replace(runs[1], fitted=renamed)], tmp_path / "ensemble")
  with pytest.raises(ConfigError, match="workdir of one of the runs"):
    combine(runs, runs[0].workdir)
  with pytest.raises(ConfigError, match="2 weights for 3 runs"):
    combine(runs, tmp_path / "ensemble", weights=(1, 2))


def test_the_temperature_has_the_smallest_log_loss_and_keeps_the_classes(runs, tmp_path):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 400)
  logits = 5 * (rng.normal(size=(400, 3)) + np.eye(3)[labels])
  found = best_temperature(logits, labels)
  grid = np.geomspace(0.1, 100, 2000)
  losses = [calibration(logits / t, labels)["log_loss"] for t in grid]
  assert found == pytest.approx(grid[int(np.argmin(losses))], rel=5e-3) and found > 3
  cooled = calibrated(runs[0], logits, labels, tmp_path / "cooled")
  before, after = probabilities(runs[0]), probabilities(cooled)
  np.testing.assert_array_equal(before.argmax(1), after.argmax(1))
  np.testing.assert_allclose(after, before ** (1 / found) / (before ** (1 / found)).sum(1, keepdims=True), atol=1e-6)


def test_members_begin_with_different_parameters():
  from mmjax.models import EnsembleConfig

  found = params(EnsembleConfig(models=(SMALL, SMALL)), 0)
  kernel = found["members_0"]["image"]["transformer"]
  leaf = jax.tree.leaves(kernel)[0]
  assert leaf.shape[0] == 2 and not np.array_equal(leaf[0], leaf[1])

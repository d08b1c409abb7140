"""Probes: what they find in features, and how the strength of the linear one is chosen."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mmjax.data import DataError
from mmjax.evaluate.calibration import softmax
from mmjax.evaluate.probe import (
  Features,
  accuracy,
  best_strength,
  choose_strength,
  few_shots,
  fit_linear,
  linear_probe,
  mean_and_deviation,
  nearest_neighbours,
  probes,
  read_features,
)
from mmjax.probe import main

ROWS, LABELS = load_iris(return_X_y=True)
TRAIN = Features(ROWS[::2].astype(np.float32), LABELS[::2])
TEST = Features(ROWS[1::2].astype(np.float32), LABELS[1::2])


def test_the_linear_probe_minimises_its_loss():
  train, test = (each._replace(rows=each.rows.astype(np.float64)) for each in (TRAIN, TEST))
  rows = StandardScaler().fit(train.rows).transform
  model = LogisticRegression(C=1 / 3.0, tol=1e-10, max_iter=10_000).fit(rows(train.rows), train.labels)
  expected = model.decision_function(rows(test.rows))
  np.testing.assert_allclose(linear_probe(TRAIN, TEST, 3.0), expected, atol=2e-3)
  np.testing.assert_allclose(linear_probe(train, test, 3.0, tolerance=1e-10), expected, atol=1e-6)


def test_two_classes_have_the_probabilities_of_scikit_learn():
  two = Features(TRAIN.rows[TRAIN.labels > 0].astype(np.float64), TRAIN.labels[TRAIN.labels > 0])
  rows = StandardScaler().fit(two.rows).transform
  model = LogisticRegression(C=1 / 3.0, tol=1e-10, max_iter=10_000).fit(rows(two.rows), two.labels)
  found = softmax(fit_linear(two, 3.0, tolerance=1e-10).scores(TEST.rows))
  np.testing.assert_allclose(found, model.predict_proba(rows(TEST.rows)), atol=1e-6)


def test_two_classes_have_two_scores():
  two = Features(TRAIN.rows[TRAIN.labels < 2], TRAIN.labels[TRAIN.labels < 2])
  scores = linear_probe(two, TEST, 1.0)
  np.testing.assert_allclose(scores[:, 0], -scores[:, 1])
  assert accuracy(scores, np.array([0, 1]), TEST)["acc1"] == pytest.approx(2 / 3)  # the third class is never right


@pytest.mark.parametrize("best", [0, 37, 50, 95, 96])
def test_the_search_finds_the_best_strength_of_a_curve_with_one_peak(best):
  asked = []

  def score(strength):
    asked.append(strength)
    return -abs(8 * (np.log10(strength) + 6) - best)

  assert best_strength(score) == pytest.approx(10 ** (-6 + best / 8))
  assert len(asked) == len(set(asked)) <= 16  # of 97


def test_classes_that_every_strength_tells_apart_leave_it_at_one():
  rows = np.concatenate([np.full((10, 1), -1.0), np.full((10, 1), 1.0)])
  assert choose_strength(Features(rows, np.repeat([0, 1], 10))) == 1.0


def test_the_strength_is_chosen_on_examples_that_the_probe_has_not_seen():
  rng = np.random.default_rng(0)
  noise = Features(rng.normal(size=(200, 60)), rng.integers(0, 2, 200))
  chosen = choose_strength(noise)
  assert accuracy(linear_probe(noise, noise, 1e-6), np.arange(2), noise)["acc1"] > 0.75  # learned by heart
  assert chosen > 1e-6


def test_neighbours_vote_by_their_cosine():
  scores = nearest_neighbours(TRAIN, TEST, k=5, temperature=0.1)
  unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
  cosines = unit(TEST.rows) @ unit(TRAIN.rows).T
  for row, cosine in enumerate(cosines):
    nearest = np.argsort(-cosine)[:5]
    votes = [sum(np.exp((cosine[n] - 1) / 0.1) for n in nearest if TRAIN.labels[n] == label) for label in range(3)]
    np.testing.assert_allclose(scores[row], votes, rtol=1e-4, atol=1e-6)


def test_shots_are_of_every_class_and_differ_by_seed():
  one, two = few_shots(TRAIN, 4, 0), few_shots(TRAIN, 4, 1)
  assert np.bincount(one.labels).tolist() == [4, 4, 4]
  assert not np.array_equal(one.rows, two.rows)
  assert len(few_shots(TRAIN, 1000, 0).labels) == len(TRAIN.labels)
  assert choose_strength(few_shots(TRAIN, 1, 0)) == 1.0  # nothing can be held out


def test_draws_are_summed_up():
  mean, deviation = mean_and_deviation([{"acc1": 0.5}, {"acc1": 0.7}])
  assert mean == {"acc1": pytest.approx(0.6)} and deviation == {"acc1": pytest.approx(0.1)}


def test_features_of_a_file_are_probed(tmp_path, capsys):
  path, arrays = tmp_path / "iris.npz", dict(train_rows=TRAIN.rows, train_labels=TRAIN.labels)
  arrays |= dict(test_rows=TEST.rows, test_labels=TEST.labels)
  np.savez(path, **arrays)
  with pytest.raises(SystemExit) as stop:
    main([str(path), "--shots", "2", "--draws", "2", "--neighbours", "5"])
  assert stop.value.code == 0
  found = probes(TRAIN, TEST, neighbours=5, shots=(2,), draws=2)
  assert [each.name for each in found] == ["linear", "neighbours", "2_shot"] and found[0].metrics["acc1"] > 0.9
  assert found[2].deviation["acc1"] > 0 == found[0].deviation["acc1"]
  printed = " ".join(capsys.readouterr().out.split())
  assert f"{found[2].metrics['acc1']:.3f}" in printed and "commonest class: 0.333" in printed


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"test_labels": None}, "has no array 'test_labels'"),
    ({"train_rows": np.array([[np.nan, 0], [1, 2]])}, r"train_rows is float64 \[2, 2\], not finite"),
    ({"test_labels": np.array([0.5])}, "test_labels is float64"),
    ({"test_rows": np.ones((1, 3))}, "train_rows has 2 features and test_rows 3"),
    ({"train_labels": np.array([1, 1])}, "has one class only"),
  ],
)
def test_files_whose_arrays_do_not_fit_are_refused(changes, said, tmp_path):
  arrays = dict(train_rows=np.eye(2), train_labels=np.arange(2), test_rows=np.ones((1, 2)), test_labels=np.array([0]))
  np.savez(tmp_path / "f.npz", **{name: value for name, value in (arrays | changes).items() if value is not None})
  with pytest.raises(DataError, match=said):
    read_features(tmp_path / "f.npz")
  (tmp_path / "f.npz").write_bytes(b"no zip")
  with pytest.raises(DataError, match="Cannot read the features"):
    read_features(tmp_path / "f.npz")

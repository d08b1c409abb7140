"""Prompt templates are averaged in embedding space, then brought back to unit norm."""

import numpy as np

from mmjax.evaluate.zero_shot import class_embeddings, mean_embeddings, zero_shot

TABLE = {"cat": [1, 0, 0], "a cat": [0, 1, 0], "dog": [0, 0, 1], "a dog": [0, 0, 1]}


def encode(strings):
  return np.array([TABLE[string] for string in strings], np.float32)


def test_templates_by_hand():
  rows = class_embeddings(encode, ["cat", "dog"], ["{}", "a {}"])
  np.testing.assert_allclose(rows, [[np.sqrt(0.5), np.sqrt(0.5), 0], [0, 0, 1]], atol=1e-7)


def test_mean_embeddings_by_hand():
  rows = mean_embeddings(np.eye(3, dtype=np.float32), np.array([2, 0, 2]), 3)
  half = np.sqrt(0.5)
  np.testing.assert_allclose(rows, [[0, 1, 0], [0, 0, 0], [half, 0, half]], atol=1e-7)


def test_zero_shot_beside_chance():
  classes = class_embeddings(encode, ["cat", "dog"], ["{}", "a {}"])
  metrics, chance = zero_shot(encode(["cat", "a cat", "dog"]), np.array([0, 1, 1]), classes)
  assert metrics == {"acc1": 2 / 3, "mean_per_class_recall": 0.75}
  assert chance == {"acc1": 0.5, "mean_per_class_recall": 0.5}

"""Mixup and CutMix are what their papers say: pixels and shares, image by image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives import Classify, cutmix, mixup
from mmjax.objectives.losses.mixing import partners
from mmjax.objectives.terms.base import Forward
from mmjax.types import Encoded

GROUP = 3
IMAGES = np.random.default_rng(0).normal(size=(6, 10, 8, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), 6)
NEXT = [1, 2, 0, 4, 5, 3]


def test_partners_stay_in_their_group():
  np.testing.assert_array_equal(partners(jnp.arange(6), GROUP), NEXT)


def test_mixup_blends_each_image_with_its_partner():
  images, share = mixup(jnp.asarray(IMAGES), KEYS, alpha=0.4, group=GROUP)
  for row, (own, other) in enumerate(zip(IMAGES, IMAGES[NEXT], strict=True)):
    np.testing.assert_allclose(images[row], share[row] * own + (1 - share[row]) * other, rtol=1e-6, atol=1e-6)
  assert share.min() > 0 and share.max() < 1 and len(np.unique(share)) == 6


def test_cutmix_takes_one_rectangle_from_the_partner_and_counts_its_pixels():
  images, share = cutmix(jnp.asarray(IMAGES), KEYS, alpha=1.0, group=GROUP)
  for row, (own, other) in enumerate(zip(IMAGES, IMAGES[NEXT], strict=True)):
    taken = np.all(np.asarray(images[row]) == other, axis=-1)
    np.testing.assert_array_equal(images[row][~taken], own[~taken])
    rows, columns = np.flatnonzero(taken.any(1)), np.flatnonzero(taken.any(0))
    assert taken.sum() == len(rows) * len(columns)
    assert all(np.all(np.diff(places) == 1) for places in (rows, columns))
    assert share[row] == pytest.approx(1 - taken.mean(), abs=1e-6)


def test_the_area_of_cutmix_is_that_of_the_beta_distribution_where_nothing_is_cut_off():
  keys = jax.random.split(jax.random.key(1), 2000)
  _, share = cutmix(jnp.zeros((2000, 32, 32, 1)), keys, alpha=1.0, group=2)
  # E[share] = 1 - E[h]^2-like: a side s around a uniform centre keeps s - s^2 / 4 of an axis, s^2 is uniform.
  side = np.sqrt(np.random.default_rng(0).uniform(size=200_000))
  kept = (side - side**2 / 4) ** 2
  assert float(share.mean()) == pytest.approx(1 - kept.mean(), abs=0.015)


class Scores:
  """A model whose logits are the first values of the images: what was classified can be read off."""

  def encode(self, batch, *, rng=None):
    first = batch["image"][:, 0, 0, :]
    return {"image": Encoded(first[:, None], jnp.ones((len(first), 1), bool), first)}

  def class_logits(self, encoded, *, rng=None):
    return encoded["image"].pooled


def forward(labels):
  batch = {"image": jnp.asarray(IMAGES), "label": jnp.asarray(labels)}
  return Forward(Scores(), batch, KEYS, jnp.int32(0), ("image",), training=True)


def reference(logits, label, smoothing=0.0):
  log = logits - np.log(np.exp(logits).sum())
  target = (1 - smoothing) * np.eye(3)[label] + smoothing / 3
  return -(target * log).sum()


LABELS = np.array([0, 1, 2, 2, 1, 0], np.int32)


def test_the_loss_is_the_weighted_cross_entropy_of_the_smoothed_class():
  scores = Classify(label_smoothing=0.1, class_weights=(1.0, 2.0, 0.5)).over_rows(forward(LABELS), None)
  expected = [reference(IMAGES[row, 0, 0], label, 0.1) for row, label in enumerate(LABELS)]
  np.testing.assert_allclose(scores["loss"][0], expected, rtol=1e-5)
  np.testing.assert_array_equal(scores["loss"][1], np.array([1.0, 2.0, 0.5], np.float32)[LABELS])
  np.testing.assert_array_equal(scores["accuracy"][0], IMAGES[:, 0, 0].argmax(-1) == LABELS)


def test_the_loss_of_a_mixed_image_is_that_of_both_classes():
  term = Classify(mixup=0.4, class_weights=(1.0, 2.0, 0.5), group=GROUP)
  given = forward(LABELS)
  losses, weights = term.over_rows(given, None)["loss"]
  images, share = mixup(jnp.asarray(IMAGES), given.keys("classify"), alpha=0.4, group=GROUP)
  for row, (own, other) in enumerate(zip(LABELS, LABELS[NEXT], strict=True)):
    parts = [(share[row], own), (1 - share[row], other)]
    weigh = [part * (1.0, 2.0, 0.5)[label] for part, label in parts]
    values = [w * reference(np.asarray(images[row, 0, 0]), label) for w, (_, label) in zip(weigh, parts, strict=True)]
    assert float(weights[row]) == pytest.approx(float(sum(weigh)), rel=1e-5)
    assert float(losses[row]) == pytest.approx(float(sum(values) / sum(weigh)), rel=1e-5)


def test_with_both_each_image_is_mixed_by_one_of_them():
  term, given = Classify(mixup=0.4, cutmix=1.0, group=GROUP), forward(LABELS)
  mixed = term._mixed(given)
  blended, cut = (
    fn(jnp.asarray(IMAGES), given.keys("classify"), alpha=alpha, group=GROUP)
    for fn, alpha in ((mixup, 0.4), (cutmix, 1.0))
  )
  is_cut = [bool(np.allclose(mixed.images[row], cut.images[row])) for row in range(6)]
  assert any(is_cut) and not all(is_cut)
  for row, cut_it in enumerate(is_cut):
    same = cut if cut_it else blended
    np.testing.assert_array_equal(mixed.images[row], same.images[row])
    assert mixed.share[row] == same.share[row]


def test_classes_are_weighed_by_the_data():
  learnt = {"label": {"classes": ["a", "b"], "counts": [1, 3]}}
  assert Classify(balanced=True).fitted(num_records=4, learnt=learnt).class_weights == (2.0, 4 / 6)
  with pytest.raises(ValueError, match=r"has 3 class_weights, and the data has 2 classes \(a, b, ...\)"):
    Classify(class_weights=(1.0, 1.0, 1.0)).fitted(num_records=4, learnt=learnt)


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    (dict(label_smoothing=1.0), r"it must lie in \[0, 1\)"),
    (dict(mixup=-1.0), "must not be negative"),
    (dict(cutmix=1.0, inputs=("text",)), "mix images, and the inputs of classify are text"),
  ],
)
def test_settings_that_make_no_sense_are_refused(fields, said):
  with pytest.raises(ValueError, match=said):
    Classify(**fields)

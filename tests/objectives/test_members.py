"""Members of an ensemble learn in one program what each would learn alone from its own sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.models import EnsembleConfig
from mmjax.objectives import Classify, ClassifyMembers, Forward
from mmjax.objectives.losses.resampling import sample_counts
from tests.ensembles.tiny import IMAGES, SMALL, params

ENSEMBLE = EnsembleConfig(models=(SMALL,) * 2)
LABELS = np.array([0, 1, 2, 1, 0])
INDEX = np.array([7, 0, 3, 90, 4], np.int32)


def counts(index, members, sampling, seed=0):
  return np.asarray(sample_counts(jnp.asarray(index, jnp.int32), members=members, sampling=sampling, seed=seed))


def test_samples_depend_on_the_example_alone():
  index = np.arange(4000)
  many = counts(index, 3, "bootstrap")
  assert many.mean() == pytest.approx(1, abs=0.02) and many.var() == pytest.approx(1, abs=0.05)
  assert (many == 0).mean() == pytest.approx(np.exp(-1), abs=0.015)
  assert abs(np.corrcoef(many)[0, 1]) < 0.05  # members draw independently
  np.testing.assert_array_equal(counts(index[::-7], 3, "bootstrap"), many[:, ::-7])
  assert not np.array_equal(counts(index, 3, "bootstrap", seed=1), many)
  folds = counts(index, 3, "folds")
  assert (folds == 0).sum(0).tolist() == [1] * 4000 and ((folds == 0).mean(1) > 0.3).all()
  assert (counts(index, 3, "all") == 1).all()


def losses(term, model, given, batch):
  """Losses and weights of the rows, by the term."""

  def speak(module):
    keys = jax.random.split(jax.random.key(0), len(LABELS))
    return term.over_rows(Forward(module, batch, keys, jnp.int32(0), term.reads, training=False), None)["loss"]

  return model.build().apply({"params": given}, method=lambda module: speak(module))


def test_value_and_gradient_are_those_of_members_alone():
  batch = {"image": IMAGES, "label": LABELS, "index": INDEX}
  term, alone = ClassifyMembers(class_weights=(1.0, 2.0, 3.0)), Classify(class_weights=(1.0, 2.0, 3.0))
  given = params(ENSEMBLE, 0)
  total = lambda term, model, given, batch: jnp.dot(*losses(term, model, given, batch))
  value, gradient = jax.jit(jax.value_and_grad(functools.partial(total, term, ENSEMBLE)))(given, batch)
  drawn, expected = counts(INDEX, 2, "bootstrap"), 0.0
  weighed = Classify(class_weights=alone.class_weights, example_weights="weight")
  one = jax.jit(jax.value_and_grad(functools.partial(total, weighed, SMALL)))
  for member in range(2):
    own = jax.tree.map(lambda leaf, m=member: leaf[m], given["members_0"])
    found, slope = one(own, batch | {"weight": drawn[member]})
    expected += found
    jax.tree.map(lambda a, b, m=member: np.testing.assert_allclose(a[m], b, atol=2e-6), gradient["members_0"], slope)
  assert float(value) == pytest.approx(float(expected), rel=1e-5)


def test_settings_that_make_no_sense_are_refused():
  with pytest.raises(ValueError, match="has no mixup"):
    ClassifyMembers(mixup=0.2)
  with pytest.raises(ValueError, match="no weight of their own"):
    Classify(mixup=0.2, example_weights="weight")
  with pytest.raises(ConfigError, match="there is one: add more"):
    ClassifyMembers(sampling="folds").check(EnsembleConfig(models=(SMALL,)), {})
  with pytest.raises(ValueError, match="equal configuration must stand together"):
    EnsembleConfig(models=(SMALL, EnsembleConfig(models=(SMALL,)), SMALL))

"""Towers that an example may lack: nothing of an absent modality is read, by any fusion."""

import dataclasses
import functools
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import Present
from mmjax.encoders import TowerConfig
from mmjax.errors import ConfigError
from mmjax.fusion import FusionConfig, FusionKind
from mmjax.models import ClassifierConfig, PredictorConfig
from mmjax.models.joined import PRESENT
from mmjax.objectives import Classify, Regress, regression_loss
from mmjax.objectives.terms.base import Forward
from mmjax.types import Encoded


class Columns(nn.Module):
  """The columns of an array [batch, 2, 8] are the tokens."""

  config: typing.Any

  def __call__(self, rows, *, rng=None):
    return Encoded(rows, jnp.ones(rows.shape[:2], bool), rows[:, 0])


@dataclasses.dataclass(frozen=True)
class ColumnsConfig(TowerConfig):
  pooled_width = 8

  def example(self, batch_size):
    return jnp.zeros((batch_size, 2, 8), jnp.float32)

  def build(self):
    return Columns(self)


TOWER = ColumnsConfig()
NAMES = ("first", "second", "third")
PAIRS_ONLY = ("bilinear",)
RNG = np.random.default_rng(0)


def config(names=NAMES, kind=None, **fields):
  fusion = kind and FusionConfig(kind=kind, width=8, depth=1, num_heads=2, mlp_dim=8, rank=2, bottlenecks=2)
  return ClassifierConfig(
    towers=dict.fromkeys(names, TOWER), fusion=fusion, num_classes=3, **{"partial": True} | fields
  )


def encodings(names):
  draw = lambda *shape: jnp.asarray(RNG.normal(size=shape), jnp.float32)
  return {name: Encoded(draw(2, 3, 8), jnp.ones((2, 3), bool), draw(2, 8)) for name in names}


def drawn(model, names):
  """Parameters of the fusion and the head, none of them zero."""
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), encodings(names), method="outputs"))["params"]
  return jax.tree.map(lambda leaf: jnp.asarray(RNG.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.mark.parametrize("kind", [None, *typing.get_args(FusionKind)])
def test_no_fusion_reads_an_absent_modality(kind):
  names = NAMES[:2] if kind in PAIRS_ONLY else NAMES
  model = config(names, kind).build()
  params, encoded = drawn(model, names), encodings(names)
  there = jnp.asarray([[True, False, True][: len(names)], [False, True, True][: len(names)]])
  answer = jax.jit(
    lambda encoded, there: model.apply({"params": params}, encoded, there, method=lambda m, *a: m.outputs(m.choose(*a)))
  )
  found = answer(encoded, there)
  only = lambda stays, a, b: jnp.where(jnp.expand_dims(stays, range(1, a.ndim)), a, b)
  other = {
    name: jax.tree.map(functools.partial(only, stays), encoded[name], changed)
    for stays, (name, changed) in zip(there.T, encodings(names).items(), strict=True)
  }
  assert found.dtype == jnp.float32 and np.isfinite(found).all()
  np.testing.assert_array_equal(answer(other, there), found)
  assert np.abs(answer(encoded, jnp.ones_like(there)) - found).max(1).min() > 1e-4
  assert np.abs(answer(encodings(names), there) - found).max(1).min() > 1e-4  # the others are read


def test_late_fusion_averages_the_modalities_that_are_there():
  model, encoded = config(kind="late").build(), encodings(NAMES)
  params = drawn(model, NAMES)
  assert "class_projection" not in params
  there = jnp.asarray([[True, False, True], [False, True, False]])
  found = model.apply({"params": params}, encoded, there, method=lambda m, *a: m.class_logits(m.choose(*a)))
  head = lambda i: (
    encoded[NAMES[i]].pooled @ params["fusion"][f"input_{i}_projection"]["kernel"]
    + (params["fusion"][f"input_{i}_projection"]["bias"][None])
  )
  expected = np.stack([(head(0)[0] + head(2)[0]) / 2, head(1)[1]])
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def dropping():
  """A model with modality dropout, its parameters and a batch."""
  model = config(modality_dropout=0.4, partial=False).build()
  params = jax.jit(model.init)(jax.random.key(0), model.config.example(1))["params"]
  batch = {name: jnp.asarray(RNG.normal(size=(200, 2, 8)), jnp.float32) for name in NAMES}
  return model, params, batch


def test_dropout_leaves_out_modalities_of_each_example(dropping):
  model, params, batch = dropping
  keys = jax.random.split(jax.random.key(1), 200)
  encode = jax.jit(lambda batch, keys: model.apply({"params": params}, batch, rng=keys, method="encode"))
  encoded = encode(batch, keys)
  there = np.stack([encoded[name].mask.any(1) for name in NAMES], 1)
  assert there.any(1).all() and 0.55 < there.mean() < 0.7  # 0.6, and a little more because one always stays
  for name in NAMES:
    absent = ~encoded[name].mask.any(1)
    np.testing.assert_array_equal(
      np.asarray(encoded[name].pooled)[absent], np.tile(params[f"{name}_absent_bias"], (int(absent.sum()), 1))
    )
  backwards = encode({name: rows[::-1] for name, rows in batch.items()}, keys[::-1])
  np.testing.assert_array_equal(np.stack([backwards[name].mask.any(1) for name in NAMES], 1), there[::-1])
  given = jnp.asarray(RNG.random((200, 3)) < 0.5).at[:, 1].set(True)
  kept = encode(batch | {PRESENT: given}, keys)
  found = np.stack([kept[name].mask.any(1) for name in NAMES], 1)
  assert not (found & ~np.asarray(given)).any() and found.any(1).all() and found.sum() < np.asarray(given).sum()


def test_evaluation_leaves_out_what_is_not_there_only(dropping):
  model, params, batch = dropping
  few = {name: rows[:2] for name, rows in batch.items()}
  encoded = model.apply({"params": params}, few, method="encode")
  assert all(one.mask.all() for one in encoded.values())
  given = model.apply(
    {"params": params}, few | {PRESENT: jnp.asarray([[True, False, True], [True, True, True]])}, method="encode"
  )
  assert [bool(one.mask[0].any()) for one in given.values()] == [True, False, True]
  np.testing.assert_array_equal(given["second"].tokens[0], 0)


def test_a_term_gives_the_fusion_the_keys_of_the_examples():
  fusion = FusionConfig(kind="merged_attention", width=8, depth=1, num_heads=2, dropout=0.5)
  model = dataclasses.replace(config(partial=False), fusion=fusion).build()
  params = drawn(model, NAMES)
  batch = {name: jnp.asarray(RNG.normal(size=(4, 2, 8)), jnp.float32) for name in NAMES}
  batch["label"], keys = jnp.asarray([0, 1, 2, 0]), jax.random.split(jax.random.key(1), 4)

  @functools.partial(jax.jit, static_argnames="training")
  def losses(rows, training):
    some, their_keys = jax.tree.map(lambda leaf: leaf[rows], (batch, keys))
    made = Forward(model.bind({"params": params}), some, their_keys, jnp.int32(0), NAMES, training=training)
    return Classify(inputs=NAMES).over_rows(made, None)["loss"].losses

  rows = jnp.arange(4)
  dropped = losses(rows, training=True)
  assert (dropped != losses(rows, training=False)).all()
  np.testing.assert_allclose(losses(rows[::-1], training=True), dropped[::-1], rtol=1e-6)


def test_models_without_absent_modalities_have_no_such_parameters():
  shapes = jax.eval_shape(lambda: config(partial=False).build().init(jax.random.key(0), config().example(1)))
  assert set(shapes["params"]) == {"class_projection"}


def test_a_predictor_begins_at_the_mean():
  model = PredictorConfig(towers={"first": TOWER}).build()
  params = jax.jit(model.init)(jax.random.key(0), model.config.example(1))["params"]
  batch = {"first": jnp.ones((2, 2, 8), jnp.float32)}
  predicted = model.apply({"params": params}, batch, method=lambda m, b: m.predict(m.encode(b)))
  assert predicted.tolist() == [0, 0]


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"modality_dropout": 1.0}, r"modality_dropout=1.0 must lie in \[0, 1\)"),
    ({"towers": {"first": TOWER}, "modality_dropout": 0.1}, "need two towers, and the model has first"),
    ({"towers": {"first": TOWER, "present": TOWER}}, "no tower can have the name 'present'"),
    ({"towers": {}}, "needs a tower"),
  ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(config(partial=False), **change)


def test_terms_read_all_towers_and_the_modalities_that_there_are():
  column = {PRESENT: Present(NAMES)}
  Classify(inputs=(*NAMES, PRESENT)).check(config(), column)
  Regress(inputs=NAMES).check(config(partial=False), {})
  with pytest.raises(ConfigError, match="objective classify reads image, and the model has a tower 'first'"):
    Classify().check(config(), {})
  with pytest.raises(ConfigError, match="objective regress does not read it, but the data has a column"):
    Regress(inputs=NAMES).check(config(), column)
  with pytest.raises(ConfigError, match="classify reads it, but the data has no column 'present'"):
    Classify(inputs=(*NAMES, PRESENT)).check(config(), {})
  for model, columns in ((config(), {PRESENT: Present(NAMES[::-1])}), (config(partial=False), column)):
    with pytest.raises(ConfigError, match="name these in this order, and set --model.partial"):
      Classify(inputs=(*NAMES, PRESENT)).check(model, columns)


def test_losses_of_numbers():
  predicted, true = jnp.asarray([1.0, 0.0, -3.0]), jnp.asarray([0.5, 0.0, 1.0])
  assert regression_loss(predicted, true, kind="squared").losses.tolist() == [0.25, 0, 16]
  assert regression_loss(predicted, true, kind="huber", delta=2.0).losses.tolist() == [0.125, 0, 6]
  slope = jax.grad(lambda p: regression_loss(p, true, kind="huber", delta=2.0).losses.sum())(predicted)
  assert slope.tolist() == [0.5, 0, -2]
  with pytest.raises(ValueError, match="delta=0 must be above 0"):
    Regress(delta=0)

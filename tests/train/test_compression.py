"""Magnitude pruning by its schedule, and training with weights that are rounded to int8."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.nn.int8 import linear_kernels, trained_for_int8
from mmjax.objectives import clip_loss
from mmjax.parallel.mesh import put_batch
from mmjax.settings import CompressionConfig
from mmjax.train.compression import pruned, sparsity_at
from mmjax.train.setup import prepare
from tests.tiny import EXPERIMENT, experiment, host_batch

SPARSE = CompressionConfig(sparsity=0.8, sparse_from=10, sparse_until=30, sparse_every=5)


def test_the_share_of_zeros_rises_as_in_the_paper():
  shares = [float(sparsity_at(SPARSE, jnp.asarray(step), 100)) for step in (0, 10, 20, 30, 90)]
  np.testing.assert_allclose(shares, [0, 0, 0.8 * (1 - 0.5**3), 0.8, 0.8], rtol=1e-6)
  late = dataclasses.replace(SPARSE, sparse_until=None)
  assert float(sparsity_at(late, jnp.asarray(66), 100)) == pytest.approx(0.8)


def cut(before, after, step, config=SPARSE, name="kernel"):
  tree = lambda array: {"mlp": {name: jnp.asarray(array, jnp.float32)}}
  return np.asarray(pruned(config, tree(after), tree(before), jnp.asarray(step), 100)["mlp"][name])


def test_the_smallest_weights_become_zero_and_stay_so():
  kernel = np.arange(1, 21, dtype=np.float32).reshape(4, 5) * np.where(np.arange(20).reshape(4, 5) % 2, 1, -1)
  np.testing.assert_array_equal(cut(kernel, kernel, 20), np.where(np.abs(kernel) <= 14, 0, kernel))  # 0.7 of 20
  np.testing.assert_array_equal(cut(kernel, kernel, 21), kernel)  # not a step of pruning
  before = np.where(np.abs(kernel) <= 6, 0, kernel)
  np.testing.assert_array_equal(cut(before, kernel, 21), before)  # zeros are the mask
  np.testing.assert_array_equal(cut(before, kernel, 5), before)
  np.testing.assert_array_equal(cut(kernel, kernel, 35), kernel)  # after the last pruning
  np.testing.assert_array_equal(cut(np.zeros((4, 5)), kernel, 21), kernel)  # not trained yet


def test_biases_and_tables_stay_and_each_layer_of_a_stack_is_cut_for_itself():
  table = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
  np.testing.assert_array_equal(
    cut(table, table, 30, name="kernel_table", config=dataclasses.replace(SPARSE, sparse_kernels=("table$",)))[0],
    [0] * 4,
  )
  tree = {"blocks": {"kernel": jnp.asarray(np.stack([table, 100 * table])), "bias": jnp.ones((2, 4))}}
  found = pruned(SPARSE, tree, tree, jnp.asarray(30), 100)["blocks"]
  assert [int((layer == 0).sum()) for layer in found["kernel"]] == [6, 6] and (found["bias"] == 1).all()
  with pytest.raises(ConfigError, match=r"sparse_kernels \('nothing',\) matches no kernel"):
    cut(table, table, 30, config=dataclasses.replace(SPARSE, sparse_kernels=("nothing",)))


@pytest.mark.parametrize(
  "wrong", [dict(sparsity=1.0), dict(sparse_every=0), dict(sparse_from=9, sparse_until=9), dict(sparse_from=-1)]
)
def test_settings_out_of_range_are_named(wrong):
  with pytest.raises(ValueError, match="compression.spars"):
    CompressionConfig(**wrong)


def test_a_run_that_is_pruned_and_rounded():
  """The loss is that of the rounded weights, the zeros are those asked for, and the moving average has them too."""
  still = dataclasses.replace(EXPERIMENT.model, image=dataclasses.replace(EXPERIMENT.model.image, patch_dropout=0.0))
  few = ("mlp/up/kernel$",)
  config = CompressionConfig(sparsity=0.5, sparse_kernels=few, sparse_until=2, sparse_every=1, quantize="all")
  made = prepare(
    dataclasses.replace(experiment(run=dict(steps=4)), model=still, compression=config), devices=jax.devices()[:1]
  )
  state, batch = made.initial_state(), host_batch()
  params = jax.device_get(state.params)
  losses = []
  for _ in range(3):
    state, metrics = made.step(state, put_batch(batch, made.mesh))
    losses.append(float(metrics["loss"]))
  linear = linear_kernels(made.model, still.example(1))
  rows = {name: jnp.asarray(batch[name]) for name in ("image", "text")}
  embed = lambda params: made.model.apply({"params": params}, rows, method=lambda m, rows: m.project(m.encode(rows)))

  @jax.jit
  def plain_and_rounded(params):
    found = [embed(p) for p in (params, trained_for_int8(params, linear))]
    return [clip_loss(e["image"], e["text"], logit_scale=jnp.float32(still.init_logit_scale)) for e in found]

  expected = [float(loss) for loss in plain_and_rounded(params)[::-1]]
  assert losses[0] == pytest.approx(expected[0], rel=1e-5) and abs(expected[0] - expected[1]) > 1e-4
  for tree in (state.params, state.ema):
    kernel = np.asarray(tree["image"]["transformer"]["block_0"]["mlp"]["up"]["kernel"])
    assert (kernel == 0).sum() == kernel.size // 2
  assert (np.asarray(state.params["text"]["token_embedding"]) != 0).all()

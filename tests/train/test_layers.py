"""Layers by parameter path: which ones are on top, and how the learning rate decays towards the input."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import (
  ConvNeXtConfig,
  EfficientNetConfig,
  FastViTConfig,
  ResNetConfig,
  SwinConfig,
  TextConfig,
  ViTConfig,
  bert_config,
)
from mmjax.errors import ConfigError
from mmjax.interop.shapes import flat_shapes, unflatten
from mmjax.models import SHARDING_RULES
from mmjax.parallel.rules import match_rules
from mmjax.settings import OptimizerConfig
from mmjax.train.layers import decayed, distances, on_top
from mmjax.train.optimizer import make_optimizer, trainable

BLOCK = {"mlp": {"up": {"kernel": jnp.ones((2, 2))}}}
VIT = {
  "image": {
    "stem": {"projection": {"kernel": jnp.ones((2, 2))}},
    "position_embedding": jnp.ones((2, 2)),
    "transformer": {**{f"block_{n}": BLOCK for n in range(3)}, "norm": {"scale": jnp.ones(2)}},
  },
  "class_projection": {"kernel": jnp.ones((2, 2))},
}
PLAIN = OptimizerConfig(
  algorithm="momentum", b1=0.0, schedule="constant", warmup_steps=0, learning_rate=1.0, weight_decay=0.0, clip_norm=0.0
)


def steps(config, params):
  """Update of each parameter whose gradient is one, by path."""
  optimizer = make_optimizer(config, params, 10)
  updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
  return {jax.tree_util.keystr(p, simple=True, separator="/"): float(-leaf.mean()) for p, leaf in flat(updates)}


def flat(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def test_each_block_below_learns_at_a_lower_rate():
  found = steps(dataclasses.replace(PLAIN, layer_decay=0.5, learning_rate_rules=(("stem", 2.0), (".*", 1.0))), VIT)
  assert found == {
    "class_projection/kernel": 1,
    "image/transformer/norm/scale": 1,
    "image/transformer/block_2/mlp/up/kernel": 1 / 2,
    "image/transformer/block_1/mlp/up/kernel": 1 / 4,
    "image/transformer/block_0/mlp/up/kernel": 1 / 8,
    "image/position_embedding": 1 / 16,
    "image/stem/projection/kernel": 2 / 16,
  }


@pytest.mark.parametrize(
  ("layers", "moved"),
  [
    (0, {"class_projection/kernel"}),
    (1, {"class_projection/kernel", "image/transformer/norm/scale", "image/transformer/block_2/mlp/up/kernel"}),
  ],
)
def test_only_top_layers_move(layers, moved):
  config = dataclasses.replace(PLAIN, top_layers=layers)
  assert {path for path, step in steps(config, VIT).items() if step} == moved
  state = make_optimizer(dataclasses.replace(config, algorithm="adam"), VIT, 10).init(VIT)
  size = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim)
  assert size == 2 * sum(leaf.size for path, leaf in flat(VIT) if named(path) in moved)  # no state for the rest


def named(path):
  return jax.tree_util.keystr(path, simple=True, separator="/")


@pytest.mark.parametrize(
  "tower",
  [
    ViTConfig(pool="attention"),
    bert_config(),
    TextConfig(),
    ResNetConfig(),
    ConvNeXtConfig(),
    EfficientNetConfig(),
    SwinConfig(),
    FastViTConfig(),
  ],
  ids=lambda tower: type(tower).__name__,
)
def test_every_tower_has_its_stem_below_and_its_last_layer_on_top(tower):
  shapes = {f"image/{path}": jnp.zeros(()) for path in flat_shapes(tower)}
  match_rules(SHARDING_RULES, unflatten(shapes), purpose="placement")  # so that a run can train it
  found = {named(path): distance for path, distance in flat(distances(unflatten(shapes)))}
  last = max(found.values())
  at = lambda wanted: {re.sub("_[0-9].*", "", path.split("/")[1]) for path, d in found.items() if d == wanted}
  below = {"stem", "stem_norm", "conv", "norm", "position_embedding", "token_embedding", "token_type_embedding"}
  assert at(last) and at(last) <= below | {"transformer"}  # BERT's norm before its blocks
  assert all("block_" in path or "stage_" in path for path, d in found.items() if 0 < d < last)
  assert set(range(last + 1)) - {0} <= set(found.values())
  top = at(0)
  assert top <= {"transformer", "norm", "pool", "attention_pool", "tanh_pool", "head", "last", "last_squeeze_excite"}
  assert not top & {"stem", "conv", "position_embedding"}


def test_what_does_not_fit_is_refused():
  stacked = {"image": {"transformer": {"blocks": {"mlp": jnp.ones((3, 2))}}}}
  with pytest.raises(ConfigError, match="image/transformer/blocks/mlp stacks the blocks .* --model.TOWER.no-scan"):
    decayed(stacked, 0.5)
  with pytest.raises(ConfigError, match="top_layers is 4, but the deepest tower has 3 blocks"):
    on_top(VIT, 4)
  with pytest.raises(ConfigError, match="with optimizer.top_layers=0 freezes every parameter"):
    trainable(dataclasses.replace(PLAIN, top_layers=0), {"image": VIT["image"]})
  for wrong in ({"layer_decay": 0.0}, {"layer_decay": 1.1}, {"top_layers": -1}):
    with pytest.raises(ValueError, match=next(iter(wrong))):
      OptimizerConfig(**wrong)


def test_towers_count_their_own_blocks():
  two = {"image": VIT["image"], "text": {"transformer": {"block_0": BLOCK, "block_10": BLOCK, "block_9": BLOCK}}}
  found = distances(two)
  np.testing.assert_equal(
    [found["text"]["transformer"][f"block_{n}"]["mlp"]["up"]["kernel"] for n in (0, 9, 10)], [3, 2, 1]
  )

"""FLOP counts by hand, and against what XLA counts."""

import dataclasses

import jax
import jax.numpy as jnp

from mmjax.encoders import TextConfig, ViTConfig, vit_size
from mmjax.models import TwoTower, TwoTowerConfig
from mmjax.models.flops import two_tower_flops


def test_vit_b_16_by_hand():
  """17.6 G multiply-adds is the literature's number for ViT-B/16 at 224 pixels (Touvron et al. 2021)."""
  flops = ViTConfig(**vit_size("B"), patch_size=16, pool="cls").flops()
  block = 2 * 197 * 12 * 768**2 + 4 * 197**2 * 768
  assert flops == 2 * 196 * 3 * 256 * 768 + 12 * block
  assert round(flops / 2e9, 1) == 17.6


def test_a_gated_mlp_and_a_map_head_of_its_own_size_by_hand():
  config = ViTConfig(image_size=8, patch_size=4, width=8, depth=2, num_heads=2, mlp_dim=12, pool="cls_map")
  gated = dataclasses.replace(config, mlp_gated=True, map_heads=4, map_mlp_dim=12)
  assert gated.flops() - config.flops() == 2 * (2 * 5 * 8 * 12)  # one layer more in each block, for 5 tokens
  assert dataclasses.replace(gated, map_mlp_dim=20).flops() - gated.flops() == 2 * (2 * 8 * 8)


def test_queries_by_hand():
  """Keys and values of 5 tokens; 3 queries, their scores, their sums and the layer after them."""
  config = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2, pool="cls")
  queries = dataclasses.replace(config, pool="queries", pool_queries=3, pool_width=6, pool_heads=3)
  matmuls = 2 * 5 * 8 * 6 * 2 + 2 * 3 * 6 * 6 * 2 + 2 * 3 * 5 * 6 * 2
  assert queries.flops() - config.flops() == matmuls


def test_close_to_what_the_compiler_counts():
  config = TwoTowerConfig(
    image=ViTConfig(image_size=32, patch_size=8, width=64, depth=1, num_heads=2, pool="mean", stem="conv"),
    text=TextConfig(vocab_size=64, max_length=16, width=64, depth=1, num_heads=2, eos_id=63, pool="map", causal=False),
    embed_dim=32,
  )
  batch = {"image": jnp.zeros((4, 32, 32, 3)), "text": jnp.zeros((4, 16), jnp.int32)}
  model = TwoTower(config)

  def logits(params, batch):
    out = model.apply({"params": params}, batch)
    return out["image"] @ out["text"].T

  params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
  counted = jax.jit(logits).lower(params, batch).compile().cost_analysis()["flops"] / 4
  ours = two_tower_flops(config, batch_size=4, train=False)
  assert ours <= counted <= 1.25 * ours  # the compiler counts elementwise operations as well
  assert two_tower_flops(config, batch_size=4) == 3 * ours

"""What the tests of captioning models share: a batch, and a loss that asks for everything a model says."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.encoders import ViTConfig
from mmjax.models.sharding import SHARDING_RULES
from mmjax.nn.words import WordsConfig
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh, parameter_shardings
from mmjax.types import Encoded

IMAGE = ViTConfig(image_size=8, patch_size=4, width=12, depth=1, num_heads=2, mlp_dim=12, pool="mean")
TEXT = WordsConfig(vocab_size=11, max_length=8, width=16, depth=1, num_heads=2, mlp_dim=16)
# [bos] words [eos] padding; the fourth text is all padding. Eight rows, so that they can lie on eight devices.
_FOUR = [[2, 5, 7, 3, 1, 0], [2, 9, 1, 0, 0, 0], [2, 4, 4, 8, 10, 1], [0, 0, 0, 0, 0, 0]]
IDS = jnp.asarray([*_FOUR, [2, 6, 6, 1, 0, 0], [2, 10, 3, 4, 5, 1], [2, 1, 0, 0, 0, 0], [2, 8, 9, 1, 0, 0]], jnp.int32)
BATCH = {"image": jnp.asarray(np.random.default_rng(0).standard_normal((8, 8, 8, 3)), jnp.float32), "text": IDS}
REAL = np.asarray(IDS != 0)


def rows(encoded: Encoded, order) -> Encoded:
  return jax.tree.map(lambda leaf: leaf[order], encoded)


def assert_close(a, b, tolerance=1e-5):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def assert_split_equals_whole(said, whole, params, *batch):
  """Batch over four pairs of devices, heads and widths over each pair, parameters over two: the same is said."""
  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  where, rows = parameter_shardings(SHARDING_RULES, params, mesh), batch_sharding(mesh)
  split = jax.jit(said, in_shardings=(where, *(rows for _ in batch)))
  assert_close(split(*jax.device_get((params, *batch))), whole, 1e-4)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whole))


def stepwise(model, params, ids, image):
  """Cached logits: two words at once, then one after another."""
  step = jax.jit(lambda ids, image, cache: model.apply({"params": params}, ids, image, cache=cache, method="decode"))
  cache, parts = model.empty_cache(ids.shape[0], ids.shape[1] + 1), []
  for first, last in ((0, 2), *((i, i + 1) for i in range(2, ids.shape[1]))):
    logits, cache = step(ids[:, first:last], None if first else image, cache)
    parts.append(logits)
  return jnp.concatenate(parts, 1)

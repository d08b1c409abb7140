"""Patches: cutting, hiding, codes, and what guessing them costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn import PatchEmbed
from mmjax.objectives import (
  block_patches,
  choose_positions,
  fit_codebook,
  masked_code_loss,
  masked_pixel_loss,
  nearest_code,
  normalize_patches,
  patchify,
  random_patches,
)
from tests.objectives.per_example import assert_finite, cross_entropy, keys, normal


def test_patches_are_in_the_order_of_the_transformers_tokens():
  images = normal(2, 4, 6, 3)
  patches = patchify(images, 2)
  assert patches.shape == (2, 6, 12)
  np.testing.assert_array_equal(patches[1, 4], images[1, 2:4, 2:4].reshape(-1))  # second row, second column
  embed = PatchEmbed(12, 2, "float32", use_bias=False)
  tokens = embed.apply({"params": {"projection": {"kernel": jnp.eye(12)}}}, images)
  np.testing.assert_allclose(tokens.reshape(2, 6, 12), patches, rtol=1e-6)
  with pytest.raises(ValueError, match="patch_size=4 must divide the sides of 4x6"):
    patchify(images, 4)


def test_normalised_patches_have_mean_0_and_variance_1_and_flat_ones_are_zeros():
  patches = normal(2, 3, 12).at[0, 0].set(0.7) * 5.0 + 2.0
  got = np.asarray(normalize_patches(patches))
  np.testing.assert_allclose(got.mean(-1), 0, atol=1e-5)
  np.testing.assert_allclose(got[1].var(-1, ddof=1), 1, rtol=1e-4)
  assert not np.abs(got[0, 0]).max() > 1e-2 and np.isfinite(got).all()


@pytest.mark.parametrize("kind", ["random", "block"])
def test_every_example_hides_equally_many_patches_by_its_own_key(kind):
  hide = lambda rng: random_patches(rng, 48, rate=0.4) if kind == "random" else block_patches(rng, (6, 8))
  rng = keys(300)
  hidden = np.asarray(jax.jit(hide)(rng))
  np.testing.assert_array_equal(hidden.sum(1), round(0.4 * 48))
  np.testing.assert_array_equal(jax.jit(hide)(rng[::-1])[::-1], hidden)
  assert len(np.unique(hidden, axis=0)) > 270
  often = hidden.mean(0).reshape(6, 8)
  assert often.min() > 0.09 and often.max() < 0.7  # every place is hidden now and then, with blocks corners less often
  np.testing.assert_allclose(often.mean(1), often.mean(1)[::-1], atol=0.12)
  positions, there = choose_positions(jnp.asarray(~hidden), 29)
  assert there.all() and not np.take_along_axis(hidden, np.asarray(positions), 1).any()  # what MAE's encoder sees


def test_blocks_hide_neighbours_together():
  together = []
  for hide in (lambda rng: block_patches(rng, (8, 8)), lambda rng: random_patches(rng, 64, rate=0.4)):
    grid = np.asarray(jax.jit(hide)(keys(200))).reshape(-1, 8, 8)
    together.append((grid[:, :, 1:] & grid[:, :, :-1]).sum() / grid[:, :, :-1].sum())
  assert together[0] > 0.65 and together[1] < 0.45  # of a hidden patch's right neighbours, how many are hidden


def test_pixel_and_code_losses_are_means_over_the_hidden_patches():
  predicted, target, logits = normal(2, 3, 4), normal(2, 3, 4, seed=1), normal(2, 3, 5)
  codes, hidden = jnp.asarray([[0, 4, 2], [1, 1, 1]], jnp.int32), jnp.asarray([[True, False, True], [False] * 3])
  error = np.asarray(predicted - target, np.float64)[0, [0, 2]]
  for kind, want in (("squared", (error**2).mean()), ("absolute", np.abs(error).mean())):
    loss = lambda predicted, kind=kind: masked_pixel_loss(predicted, target, hidden, kind=kind)
    losses, weights, (gradient,) = assert_finite(loss, predicted)
    np.testing.assert_allclose(losses, [want, 0], rtol=1e-5)
    np.testing.assert_array_equal(weights, [1, 0])
    assert not gradient[~hidden].any() and gradient[hidden].all()
  losses, weights, _ = assert_finite(lambda logits: masked_code_loss(logits, codes, hidden), logits)
  np.testing.assert_allclose(losses, [cross_entropy(logits, codes)[0, [0, 2]].mean(), 0], rtol=1e-5)
  np.testing.assert_array_equal(weights, [1, 0])


def test_a_codebook_finds_separate_clusters_and_depends_on_nothing_but_its_input():
  centres = np.asarray([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
  patches = np.repeat(centres, 25, 0) + np.random.default_rng(0).normal(0, 0.1, (100, 2)).astype(np.float32)
  fit = jax.jit(lambda x, key: fit_codebook(x, 4, key=key))
  codebook = fit(patches, jax.random.key(0))
  np.testing.assert_array_equal(codebook, fit(patches, jax.random.key(0)))
  means = patches.reshape(4, 25, 2).mean(1)
  nearest = np.asarray(nearest_code(jnp.asarray(means)[None], codebook))[0]
  assert sorted(nearest) == [0, 1, 2, 3]
  np.testing.assert_allclose(codebook[nearest], means, rtol=1e-5, atol=1e-5)
  brute = np.argmin(((patches[:, None] - np.asarray(codebook)[None]) ** 2).sum(-1), 1)
  np.testing.assert_array_equal(nearest_code(jnp.asarray(patches)[None], codebook)[0], brute)
  same = fit_codebook(jnp.ones((5, 2)), 3, key=jax.random.key(0))  # fewer different patches than codes
  np.testing.assert_array_equal(same, 1)
  with pytest.raises(ValueError, match="6 codes need at least as many patches, got 5"):
    fit_codebook(jnp.ones((5, 2)), 6, key=jax.random.key(0))

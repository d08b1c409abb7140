"""Word-patch alignment: the cost of moving the words of a text to the patches of its image."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from mmjax.nn.norm import normalize


def transport_plan(
  cost: Float[Array, "batch words patches"],
  words: Bool[Array, "batch words"],
  patches: Bool[Array, "batch patches"],
  *,
  beta: float = 0.5,
  iterations: int = 50,
) -> Float[Array, "batch words patches"]:
  """Approximate optimal transport plan between uniform distributions, by IPOT (Xie et al. 2020, algorithm 1).

  The defaults are those of UNITER (Chen et al. 2020, section 3.2) and ViLT. Rows sum to 1 / words, and columns to
  1 / patches, at convergence. The plan is 0 for words and patches that are not counted. It has no gradient.

  Args:
    cost: cost of moving each word to each patch.
    words: True for words that are counted.
    patches: True for patches that are counted.
    beta: step size of the proximal point method.
    iterations: number of its iterations, with one inner iteration each.
  """
  some = words.any(1, keepdims=True) & patches.any(1, keepdims=True)  # without any, 1 / 0
  word, patch = ((flags & some).astype(jnp.float32) for flags in (words, patches))
  number = lambda flags: jnp.maximum(flags.sum(1, keepdims=True), 1.0)
  kernel = jnp.exp(-lax.stop_gradient(cost).astype(jnp.float32) / beta) * word[:, :, None] * patch[:, None]
  inverse = lambda total, flags: flags / jnp.where(flags > 0, number(flags) * total, 1.0)

  def improve(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
    plan, scale = state
    product = kernel * plan
    patch_scale = inverse(jnp.einsum("bwp,bw->bp", product, scale), patch)
    scale = inverse(jnp.einsum("bwp,bp->bw", product, patch_scale), word)
    return scale[:, :, None] * product * patch_scale[:, None], scale

  start = jnp.ones_like(kernel), word / number(word)
  return lax.fori_loop(0, iterations, improve, start)[0]


def word_patch_distance(
  words: Float[Array, "batch words width"],
  patches: Float[Array, "batch patches width"],
  *,
  word_mask: Bool[Array, "batch words"],
  patch_mask: Bool[Array, "batch patches"],
  beta: float = 0.5,
  iterations: int = 50,
) -> Float[Array, "batch"]:
  """Approximate Wasserstein distance between words and patches. The cost is 1 - cosine (Kim et al. 2021, ViLT, 3.2).

  The gradient goes through the cost, not through the transport plan. An example without words or patches has 0.

  Args:
    words: output vectors of the words.
    patches: output vectors of the patches.
    word_mask: True for words that are counted.
    patch_mask: True for patches that are counted.
    beta: see `transport_plan`.
    iterations: see `transport_plan`.
  """
  x, y = normalize(words.astype(jnp.float32)), normalize(patches.astype(jnp.float32))
  cost = 1.0 - jnp.einsum("bwd,bpd->bwp", x, y)
  plan = transport_plan(cost, word_mask, patch_mask, beta=beta, iterations=iterations)
  return (lax.stop_gradient(plan) * cost).sum((1, 2))

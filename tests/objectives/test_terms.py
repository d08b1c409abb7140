import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives import clip_loss, siglip_loss
from mmjax.objectives.terms import Contrastive
from mmjax.parallel.mesh import BATCH_AXES, ParallelConfig, make_mesh, put_batch


def unit(seed, size=16):
  rows = np.random.default_rng(seed).standard_normal((size, 4)).astype(np.float32)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


EMBEDDINGS = {"image": unit(0), "text": unit(1)}
CONCEPTS = np.arange(16, dtype=np.int32) // 2


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("mask", [False, True])
def test_a_term_on_a_mesh_is_the_loss_of_the_whole_batch(loss, mask):
  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  term = Contrastive(loss=loss, mask_same_concept=mask, tile_size=4)
  call = jax.jit(
    lambda e, b: term(
      e, b, logit_scale=jnp.float32(5.0), logit_bias=jnp.float32(-1.0), mesh=mesh, batch_axes=BATCH_AXES
    )
  )
  got = call(put_batch(EMBEDDINGS, mesh), put_batch({"concept": CONCEPTS}, mesh))
  ids = jnp.asarray(CONCEPTS) if mask else None
  image, text = (jnp.asarray(EMBEDDINGS[name]) for name in ("image", "text"))
  if loss == "softmax":
    expected = clip_loss(image, text, logit_scale=5.0, ids=ids)
  else:
    expected = siglip_loss(image, text, logit_scale=5.0, logit_bias=-1.0, ids=ids)
  np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_chance_is_what_a_model_gets_that_says_the_same_of_every_pair():
  same = jnp.ones((16, 1), jnp.float32)
  softmax = clip_loss(same, same, logit_scale=3.0)
  assert Contrastive().chance(16) == pytest.approx(float(softmax), rel=1e-6)
  losses = [float(siglip_loss(same, same, logit_scale=1.0, logit_bias=bias)) for bias in np.linspace(-5, -2, 301) - 0.0]
  assert Contrastive(loss="sigmoid").chance(16) == pytest.approx(min(losses), abs=1e-4)

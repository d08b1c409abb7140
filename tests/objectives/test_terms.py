import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.objectives import clip_loss, siglip_loss
from mmjax.objectives.terms import LOSSES, Contrastive, resolve
from mmjax.parallel.mesh import BATCH_AXES, ParallelConfig, make_mesh, put_batch


def unit(seed, size=16):
  rows = np.random.default_rng(seed).standard_normal((size, 4)).astype(np.float32)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


EMBEDDINGS = {"image": unit(0), "text": unit(1)}
CONCEPTS = np.arange(16, dtype=np.int32) // 2


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mask", [False, True])
def test_a_term_on_a_mesh_is_the_loss_of_the_whole_batch(loss, mask):
  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  term = Contrastive(loss=loss, mask_same_concept=mask, tile_size=4)
  call = jax.jit(
    lambda e, b: term(
      e,
      b,
      loss=LOSSES[loss],
      logit_scale=jnp.float32(5.0),
      logit_bias=jnp.float32(-1.0),
      mesh=mesh,
      batch_axes=BATCH_AXES,
    )
  )
  got = call(put_batch(EMBEDDINGS, mesh), put_batch({"concept": CONCEPTS}, mesh))
  ids = jnp.asarray(CONCEPTS) if mask else None
  image, text = (jnp.asarray(EMBEDDINGS[name]) for name in ("image", "text"))
  options = {"hinge": {}, "triplet": {}, "semi_hard": {}}.get(loss, {"logit_scale": 5.0})
  options |= {"logit_bias": -1.0} if loss in ("sigmoid", "focal") else {}
  options |= {"labels": jnp.asarray(CONCEPTS)} if loss in ("unicl", "supcon") else {"ids": ids}
  expected = LOSSES[loss](image, text, **options)
  np.testing.assert_allclose(got, expected, rtol=2e-6)


def test_examples_of_one_class_are_positives_where_classes_are_the_labels():
  mesh = make_mesh(ParallelConfig(fsdp=2))
  common = dict(logit_scale=jnp.float32(5.0), logit_bias=jnp.float32(0.0), mesh=mesh, batch_axes=BATCH_AXES)
  term, groups = Contrastive(loss="unicl", labels="group"), CONCEPTS[::-1] % 3
  call = jax.jit(lambda e, b: term(e, b, loss=LOSSES["unicl"], **common))
  got = call(put_batch(EMBEDDINGS, mesh), put_batch({"concept": CONCEPTS, "group": groups}, mesh))
  image, text = (jnp.asarray(EMBEDDINGS[name]) for name in ("image", "text"))
  np.testing.assert_allclose(got, LOSSES["unicl"](image, text, jnp.asarray(groups), logit_scale=5.0), rtol=2e-6)
  assert term.needs == ("image", "text", "concept", "group")


@pytest.mark.parametrize("loss", ["softmax", "dcl", "unicl", "supcon", "align", "hinge", "triplet"])
def test_chance_is_what_a_model_gets_that_says_the_same_of_every_pair(loss):
  same = jnp.ones((16, 1), jnp.float32)
  options = {"hinge": {}, "triplet": {}}.get(loss, {"logit_scale": 3.0})
  options |= {"labels": jnp.arange(16)} if loss in ("unicl", "supcon") else {}
  assert Contrastive(loss=loss).chance(16) == pytest.approx(float(LOSSES[loss](same, same, **options)), rel=1e-6)


def test_chance_of_the_sigmoid_is_that_of_the_best_bias():
  same = jnp.ones((16, 1), jnp.float32)
  losses = [float(siglip_loss(same, same, logit_scale=1.0, logit_bias=bias)) for bias in np.linspace(-5, -2, 301) - 0.0]
  assert Contrastive(loss="sigmoid").chance(16) == pytest.approx(min(losses), abs=1e-4)


def own(image, text, *, logit_scale, axis_name=None):
  return clip_loss(image, text, logit_scale=logit_scale, axis_name=axis_name)


def lonely(image, text, *, logit_scale):
  return clip_loss(image, text, logit_scale=logit_scale)


def test_names_resolve_to_the_scripts_losses_and_the_built_in_ones():
  terms = (Contrastive(loss="mine"), Contrastive(loss="dcl"))
  assert resolve(terms, {"mine": own}, has_bias=False) == {"mine": own, "dcl": LOSSES["dcl"]}
  assert Contrastive(loss="mine").chance(16) is None


@pytest.mark.parametrize(
  ("name", "losses", "said"),
  [
    ("sofmax", {}, "did you mean 'softmax'"),
    ("softmax", {"softmax": own}, "give it another name"),
    ("mine", {"mine": lonely}, "has no axis_name"),
    ("mine", {"mine": lambda x, y, teacher, *, axis_name: 0.0}, "asks for 'teacher'"),
    ("mine", {"mine": siglip_loss}, "--model.init-logit-bias"),
  ],
)
def test_a_loss_that_cannot_serve_is_refused(name, losses, said):
  with pytest.raises(ConfigError, match=said):
    resolve((Contrastive(loss=name),), losses, has_bias=False)

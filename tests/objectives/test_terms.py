import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.catalogue import KINDS
from mmjax.kinds import of_base
from mmjax.objectives import (
  Align,
  Contrastive,
  Dcl,
  Focal,
  Hinge,
  PairLoss,
  SemiHard,
  Sigmoid,
  Softmax,
  Supcon,
  Triplet,
  Unicl,
  Whole,
  align_loss,
  clip_loss,
  dcl_loss,
  focal_loss,
  hinge_loss,
  semi_hard_triplet_loss,
  siglip_loss,
  supcon_views_loss,
  triplet_loss,
  unicl_loss,
)
from mmjax.parallel.mesh import BATCH_AXES, ParallelConfig, make_mesh, put_batch


def unit(seed, size=16):
  rows = np.random.default_rng(seed).standard_normal((size, 4)).astype(np.float32)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


EMBEDDINGS = {"image": unit(0), "text": unit(1)}
CONCEPTS = np.arange(16, dtype=np.int32) // 2


LOSSES = {
  Softmax(): clip_loss,
  Sigmoid(): siglip_loss,
  Dcl(): dcl_loss,
  Focal(gamma=1.5): functools.partial(focal_loss, gamma=1.5),
  Hinge(margin=0.3): functools.partial(hinge_loss, margin=0.3),
  Triplet(margin=0.3): functools.partial(triplet_loss, margin=0.3),
  SemiHard(margin=0.3, slack=0.1): functools.partial(semi_hard_triplet_loss, margin=0.3, slack=0.1),
  Align(label_smoothing=0.2): functools.partial(align_loss, label_smoothing=0.2),
  Unicl(): unicl_loss,
  Supcon(): supcon_views_loss,
}
"""Every built-in loss, with settings that are not the default where it has any, and the function that it is."""


def whole(embeddings, batch, mesh, **fields):
  given = dict(taught={}, memory=None, step=jnp.int32(0), taught_scale=jnp.float32(1.0), axes=BATCH_AXES)
  given |= dict(logit_scale=jnp.float32(5.0), logit_bias=jnp.float32(-1.0))
  return Whole(embeddings=embeddings, batch=batch, mesh=mesh, **given | fields)


def expected(loss, image, text, *, ids, labels):
  temperature = {} if isinstance(loss, Hinge | Triplet | SemiHard) else {"logit_scale": 5.0}
  bias = {"logit_bias": -1.0} if loss.needs_bias else {}
  chosen = {"labels": jnp.asarray(labels)} if isinstance(loss, Unicl | Supcon) else {"ids": ids}
  return LOSSES[loss](jnp.asarray(image), jnp.asarray(text), **temperature, **bias, **chosen)


def test_no_loss_is_left_out():
  assert {type(loss) for loss in LOSSES} == set(of_base(PairLoss, KINDS))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("mask", [False, True])
def test_a_term_on_a_mesh_is_the_loss_of_the_whole_batch(loss, mask):
  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  term = Contrastive(loss=loss, mask_same_concept=mask, tile_size=4)
  call = jax.jit(lambda e, b: term.over_batch(whole(e, b, mesh))[0])
  got = call(put_batch(EMBEDDINGS, mesh), put_batch({"concept": CONCEPTS}, mesh))
  ids = jnp.asarray(CONCEPTS) if mask else None
  np.testing.assert_allclose(got, expected(loss, *EMBEDDINGS.values(), ids=ids, labels=CONCEPTS), rtol=2e-6)


def test_examples_of_one_class_are_positives_where_classes_are_the_labels():
  mesh = make_mesh(ParallelConfig(fsdp=2))
  term, groups = Contrastive(loss=Unicl(), labels="group"), CONCEPTS[::-1] % 3
  call = jax.jit(lambda e, b: term.over_batch(whole(e, b, mesh))[0])
  got = call(put_batch(EMBEDDINGS, mesh), put_batch({"concept": CONCEPTS, "group": groups}, mesh))
  np.testing.assert_allclose(got, expected(Unicl(), *EMBEDDINGS.values(), ids=None, labels=groups), rtol=2e-6)
  assert term.needs == ("image", "text", "concept", "group")


@pytest.mark.parametrize(
  "loss", [one for one in LOSSES if one.chance(16) is not None and not one.needs_bias], ids=lambda loss: loss.name
)
def test_chance_is_what_a_model_gets_that_says_the_same_of_every_pair(loss):
  same, distinct = jnp.ones((16, 1), jnp.float32), jnp.arange(16)
  assert loss.chance(16) == pytest.approx(float(expected(loss, same, same, ids=None, labels=distinct)), rel=1e-6)


def test_chance_of_the_sigmoid_is_that_of_the_best_bias():
  same = jnp.ones((16, 1), jnp.float32)
  losses = [float(siglip_loss(same, same, logit_scale=1.0, logit_bias=bias)) for bias in np.linspace(-5, -2, 301) - 0.0]
  assert Contrastive(loss=Sigmoid()).chance(16) == pytest.approx(min(losses), abs=1e-4)


@dataclasses.dataclass(frozen=True)
class Twice(PairLoss):
  factor: float = 2.0

  def __call__(self, image, text, *, logit_scale, axis_name, **_):
    return self.factor * clip_loss(image, text, logit_scale=logit_scale, axis_name=axis_name)


def test_a_loss_of_the_scripts_own_is_named_by_its_class_and_has_settings():
  term, mesh = Contrastive(loss=Twice(factor=3.0)), make_mesh(ParallelConfig())
  got = jax.jit(lambda e, b: term.over_batch(whole(e, b, mesh))[0])(
    put_batch(EMBEDDINGS, mesh), put_batch({"concept": CONCEPTS}, mesh)
  )
  image, text = (jnp.asarray(rows) for rows in EMBEDDINGS.values())
  np.testing.assert_allclose(got, 3.0 * clip_loss(image, text, logit_scale=5.0), rtol=2e-6)
  assert term.name == "twice_image_text" and term.chance(16) is None

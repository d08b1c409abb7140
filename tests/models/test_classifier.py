"""A classifier of several towers: their vectors side by side, or fused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import FusionConfig
from mmjax.models import ClassifierConfig
from mmjax.types import Encoded
from tests.tiny import MODEL

CONFIG = ClassifierConfig(towers={"image": MODEL.image, "text": MODEL.text}, num_classes=3)
RNG = np.random.default_rng(0)
POOLED = {name: jnp.asarray(RNG.normal(size=(2, 16)), jnp.float32) for name in ("image", "text")}
ENCODED = {name: Encoded(vector[:, None], jnp.ones((2, 1), bool), vector) for name, vector in POOLED.items()}
KERNEL = jnp.asarray(RNG.normal(size=(32, 3)), jnp.float32)


@pytest.mark.parametrize(
  ("fusion", "joint"),
  [
    (None, lambda a, b: jnp.concatenate([a, b], axis=1)),
    (FusionConfig(kind="product"), jnp.multiply),
    (FusionConfig(kind="sum"), jnp.add),
  ],
)
def test_the_scores_are_linear_in_the_joint_vector(fusion, joint):
  model = dataclasses.replace(CONFIG, fusion=fusion).build()
  vector = joint(POOLED["image"], POOLED["text"])
  head = {"kernel": KERNEL[: vector.shape[1]], "bias": jnp.arange(3.0)}
  found = model.apply({"params": {"class_projection": head}}, ENCODED, method="class_logits")
  np.testing.assert_allclose(found, vector @ head["kernel"] + head["bias"][None], rtol=1e-5)


def test_a_fusion_has_parameters_of_its_own():
  fusion = FusionConfig(kind="merged_attention", width=16, depth=1, num_heads=2, mlp_dim=16)
  model = dataclasses.replace(CONFIG, fusion=fusion).build()
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), model.config.example(1)))["params"]
  assert set(shapes) == {"image", "text", "fusion", "class_projection"}
  assert shapes["class_projection"]["kernel"].shape == (16, 3)


def test_a_fusion_that_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="a fusion needs two towers, and the model has image"):
    ClassifierConfig(towers={"image": MODEL.image}, fusion=FusionConfig(kind="sum"))

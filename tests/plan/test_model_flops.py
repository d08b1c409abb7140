"""The model's FLOPs of a script's own tower."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from mmjax.encoders.config import TowerConfig
from mmjax.models.shared_space import SharedSpaceConfig
from mmjax.parallel.mesh import ParallelConfig
from mmjax.plan.model_flops import model_flops
from mmjax.types import Encoded
from tests.tiny import EXPERIMENT


@dataclasses.dataclass(frozen=True)
class MeansConfig(TowerConfig):
  image_size: int = 16
  pooled_width: int = 4

  def example(self, batch_size):
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3))

  def build(self):
    return Means()


class Means(nn.Module):
  @nn.compact
  def __call__(self, images, *, rng=None):
    kernel = self.param("colours", nn.initializers.normal(), (3, 4))
    rows = images.astype(jnp.float32).mean((1, 2)) @ kernel
    return Encoded(rows[:, None], jnp.ones((len(rows), 1), bool), rows)


def test_the_placement_rules_of_a_script_hold():
  model = SharedSpaceConfig(towers={"image": MeansConfig(), "text": EXPERIMENT.model.text}, embed_dim=8)
  placed = ParallelConfig(placement=((r"/colours$", ""),))
  assert model_flops(dataclasses.replace(EXPERIMENT, model=model, parallel=placed)) > 0

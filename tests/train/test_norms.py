"""Training with batch norm: exact over the global batch, and what would be silently wrong is refused."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ResNetConfig, TowerConfig, ViTConfig
from mmjax.errors import ConfigError
from mmjax.evaluate.task import describe
from mmjax.experiment import from_json, to_json
from mmjax.nn.channel_norm import ChannelNorm
from mmjax.parallel.mesh import put_batch
from mmjax.types import Encoded
from tests.tiny import experiment, host_batch, training_on


@dataclasses.dataclass(frozen=True)
class NormConfig(TowerConfig):
  """The smallest tower with a batch norm: it compiles in a fraction of a ResNet's time."""

  batch_statistics = True
  pooled_width = 16 * 16 * 3

  def example(self, batch_size: int) -> jax.Array:
    return jnp.zeros((batch_size, 16, 16, 3), jnp.float32)

  def build(self) -> nn.Module:
    return NormTower(self)


class NormTower(nn.Module):
  config: NormConfig

  @nn.compact
  def __call__(self, images, *, rng=None) -> Encoded:
    tokens = ChannelNorm("batch", name="norm")(images, training=rng is not None).reshape(len(images), -1, 3)
    return Encoded(tokens, jnp.ones(tokens.shape[:2], bool), jnp.tanh(tokens).reshape(len(images), -1))


def batch(seed: int) -> dict[str, np.ndarray]:
  images = np.random.default_rng(seed).normal(1.0, 2.0, (16, 16, 16, 3)).astype(np.float32)
  return host_batch(seed=seed) | {"image": images}


def trained(devices: int, **parts):
  """(losses and gradient norms of three steps, the tower's parameters after them)."""
  training = training_on(devices, experiment(model=dict(image=NormConfig()), **parts))
  state, seen = training.initial_state(), []
  for number in range(3):
    state, metrics = training.step(state, put_batch(batch(number), training.mesh))
    seen.append((float(metrics["loss"]), float(metrics["grad_norm"])))
  return seen, jax.device_get(state.params["image"]["norm"])


@pytest.mark.parametrize("parallel", [dict(), dict(fsdp=2, model=2)])
def test_batch_norm_does_not_depend_on_the_devices(parallel):
  (alone, one), (spread, eight) = trained(1), trained(8, parallel=parallel)
  np.testing.assert_allclose(spread, alone, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), eight, one)


def test_running_averages_are_those_of_the_batches():
  mean, var = np.zeros(3), np.ones(3)
  for number in range(3):
    images = batch(number)["image"]
    mean, var = 0.9 * mean + 0.1 * images.mean((0, 1, 2)), 0.9 * var + 0.1 * images.var((0, 1, 2))
  _, norm = trained(1)
  np.testing.assert_allclose(norm["mean"], mean, rtol=1e-5)
  np.testing.assert_allclose(norm["var"], var, rtol=1e-5)


def test_a_frozen_tower_keeps_its_running_averages():
  _, norm = trained(1, optimizer=dict(frozen=("^image/",)))
  assert not np.any(norm["mean"]) and np.all(norm["var"] == 1)


def resnet(norm: str = "batch", **parts):
  image = ResNetConfig(image_size=32, layers=(1, 1, 1, 1), width=2, num_heads=2, output_dim=8, norm=norm)
  return experiment(model=dict(image=image), **parts)


def test_statistics_of_the_batch_are_refused_in_microbatches():
  with pytest.raises(ConfigError, match=r"model.image normalises with the statistics of the global batch.*norm group"):
    training_on(1, resnet(parallel=dict(microbatches=2)))
  training_on(1, resnet("group", parallel=dict(microbatches=2)))


def test_a_frozen_norm_is_refused_from_scratch_but_not_of_weights_for_this_tower():
  with pytest.raises(ConfigError, match="model.image.norm is 'frozen'.*--pretrained.path"):
    training_on(1, resnet("frozen")).initial_state()
  with pytest.raises(ConfigError, match="model.image.norm is 'frozen'"):
    training_on(1, resnet("frozen", pretrained=dict(path="nowhere", into="text"))).initial_state()
  stem = ViTConfig(image_size=16, patch_size=16, width=8, depth=1, num_heads=2, stem="mobileclip", stem_norm="frozen")
  with pytest.raises(ConfigError, match="model.image.stem_norm is 'frozen'.*--model.image.stem_norm group"):
    training_on(1, experiment(model=dict(image=stem))).initial_state()
  with pytest.raises(Exception, match="nowhere"):  # so far it came
    training_on(1, resnet("frozen", pretrained=dict(path="nowhere", into="image"))).initial_state()


def test_older_configurations_are_frozen():
  fields = to_json(resnet("group"))
  assert from_json(fields).model.image.norm == "group"
  del fields["model"]["image"]["norm"]
  assert from_json(fields).model.image.norm == "frozen"


def test_results_name_a_residual_network():
  assert describe(resnet().model) == "ResNet-2-32px"

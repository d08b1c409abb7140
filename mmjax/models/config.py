"""The base of the configurations of models."""

import flax.linen as nn

from mmjax.kinds import Kind


class ModelConfig(Kind):
  """Configuration of a model: towers, and what reads them. A run's `model` is one of these."""

  def build(self) -> nn.Module:
    """Returns the linen module, whose one attribute `config` is this configuration."""
    raise NotImplementedError

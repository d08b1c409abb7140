"""CLAP in the form of transformers' published models: sounds and texts in a shared space (Wu et al. 2023)."""

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.encoders.bert import bert_config
from mmjax.encoders.config import TowerConfig
from mmjax.encoders.htsat import HtsatConfig
from mmjax.encoders.text import TextConfig
from mmjax.models.shared_space import Member, Projection, SharedSpace, SpaceConfig
from mmjax.nn.stochastic import Rngs

_ROBERTA = bert_config(vocab_size=50_265, count_positions=True, pad_id=1, token_types=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClapConfig(SpaceConfig):
  """A tower for sounds and one for texts. Raises ValueError if a scale or a width does not fit.

  To train such a model, use SharedSpaceConfig with towers "audio" and "text": it has one scale, which losses know.
  """

  audio: TowerConfig = HtsatConfig()
  """Tower for sounds."""
  text: TextConfig = _ROBERTA
  """Tower for texts."""
  projection: Projection = "mlp_relu"
  """Projection of each tower to the shared space (see SharedSpaceConfig)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.init_logit_scale is None:
      raise ValueError("init_logit_scale must be a number: a model with two towers has logits")

  @property
  def members(self) -> dict[str, Member]:
    return {"audio": Member(self.audio, self.projection), "text": Member(self.text, self.projection)}

  def build(self) -> nn.Module:
    return Clap(self)


class Clap(SharedSpace):
  """transformers' ClapModel.

  Parameters: audio, text, {audio,text}_projection, logit_scale (the logarithm of the factor of a sound's similarities
  with texts) and text_logit_scale (that of a text's similarities with sounds).
  """

  config: ClapConfig

  def setup(self) -> None:
    super().setup()
    assert self.config.init_logit_scale is not None
    initial = nn.initializers.constant(math.log(self.config.init_logit_scale))
    self.text_log_scale = self.param("text_logit_scale", initial, ())

  def text_logit_scale(self) -> Float[Array, ""]:
    """Factor of a text's similarities with sounds."""
    return jnp.exp(self.text_log_scale)

  @nn.jit
  def encode_audio(
    self, features: Float[Array, "batch frames bands"], *, rng: Rngs = None
  ) -> Float[Array, "batch dim"]:
    """Compute embeddings of features of sounds. They are float32 and not unit-norm."""
    return self.embedding("audio", self.audio(features, rng=rng))

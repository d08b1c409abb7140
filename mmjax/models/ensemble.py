"""Ensemble: several models with the same inputs, which answer together like one model."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.errors import ConfigError
from mmjax.models.classifier import ClassifierConfig
from mmjax.models.combining import mean_of_probabilities, side_by_side, votes
from mmjax.models.config import ModelConfig, init_params, towers
from mmjax.nn.dense import Dense
from mmjax.nn.norm import normalize
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleConfig(ModelConfig):
  """Several models of the same towers' names. Members of equal configuration are computed together, by vmap."""

  models: tuple[ModelConfig, ...] = (ClassifierConfig(), ClassifierConfig())
  """Configuration of each member. Members of equal configuration must stand together."""
  combine: Literal["mean", "vote", "stack"] = "mean"
  """Scores of classes and answers: the mean of the probabilities, votes for the likeliest class, or a learned linear
  layer over the members' log-probabilities (stacking)."""
  weights: tuple[float, ...] = ()
  """Weight of each member (mean and vote). Only their ratios matter. Empty: equal weights."""
  temperature: float = 1.0
  """The combined scores are divided by it (Guo et al. 2017, section 4.2)."""

  def __post_init__(self) -> None:
    if not self.models:
      raise ValueError("models is empty: an ensemble has at least one member")
    if len(self.groups) > len({config for config, _ in self.groups}):
      raise ValueError("models: members of equal configuration must stand together")
    names = [list(towers(config)) for config in self.models]
    if any(each != names[0] for each in names):
      raise ValueError(f"models: the members must have the same towers, and have {', '.join(map(str, names))}")
    if self.weights and len(self.weights) != len(self.models):
      raise ValueError(f"there are {len(self.weights)} weights for {len(self.models)} members: give one for each")
    if self.weights and (min(self.weights) < 0 or sum(self.weights) <= 0):
      raise ValueError(f"weights={self.weights}: none may be negative, and one must be positive")
    if self.weights and self.combine == "stack":
      raise ValueError("combine='stack' learns a layer over the members instead of weights: leave weights out")
    if self.temperature <= 0:
      raise ValueError(f"temperature={self.temperature} must be positive")

  @property
  def groups(self) -> list[tuple[ModelConfig, int]]:
    """(configuration, number of members) of members of equal configuration."""
    return [(config, len(list(same))) for config, same in itertools.groupby(self.models)]

  @property
  def shares(self) -> tuple[float, ...]:
    """Weights of the members, with the sum 1."""
    weights = self.weights or (1.0,) * len(self.models)
    return tuple(weight / sum(weights) for weight in weights)

  @property
  def towers(self) -> Mapping[str, Any]:
    """Towers of the first member, by name."""
    return towers(self.models[0])

  @property
  def embed_dim(self) -> int:
    """Dimension of the embeddings: those of the members side by side."""
    return sum(getattr(config, "embed_dim", 0) for config in self.models)

  @property
  def num_classes(self) -> int:
    """Number of classes."""
    return self._first.num_classes

  @property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes, if the members know them."""
    return self._first.classes

  @property
  def label(self) -> str:
    """Name of the column with the classes."""
    return self._first.label

  @property
  def chooses(self) -> bool:
    """True if modalities may be left out."""
    return all(getattr(config, "chooses", False) for config in self.models)

  @property
  def init_logit_bias(self) -> float | None:
    """Initial bias of the logits of the first member. None: the members have no bias."""
    return getattr(self.models[0], "init_logit_bias", None)

  @functools.cached_property
  def modules(self) -> tuple[nn.Module, ...]:
    """Module of each group. They are no submodules: their parameters are passed to them."""
    return tuple(config.build() for config, _ in self.groups)

  def fitted(self, learnt: Mapping[str, Any]) -> "EnsembleConfig":
    return dataclasses.replace(self, models=tuple(config.fitted(learnt) for config in self.models))

  def example(self, batch_size: int) -> dict[str, Array]:
    return self.models[0].example(batch_size)

  def clamped(self, params: Any) -> Any:
    changed = {name: config.clamped(params[name]) for name, (config, _) in zip(self.names, self.groups, strict=True)}
    return {**params, **changed}

  @property
  def names(self) -> list[str]:
    """Names of the groups among the parameters."""
    return [f"members_{number}" for number in range(len(self.groups))]

  def build(self) -> nn.Module:
    _ = self.modules  # made here: a module that is made inside of another one would become its submodule
    return Ensemble(self)

  @property
  def _first(self) -> Any:
    return self.models[0]


@flax.struct.dataclass
class EncodedByMembers(Encoded):
  """Encoding by all members.

  Its pooled vector is those of the members side by side. With one group, so are its tokens. Members of several groups
  may have different tokens: then the pooled vector is the only token.

  Attributes:
    groups: encodings of the members of each group: tokens [batch, members, length, width], and the others likewise.
  """

  groups: tuple[Any, ...]


class Ensemble(nn.Module):
  """Model of an EnsembleConfig.

  Parameters: members_0, members_1, ... with those of the members of each group, stacked along the first axis; and
  stack_projection/{kernel,bias} with combine="stack". It begins as the product of the members' probabilities, to the
  power 1 / members.
  """

  config: EnsembleConfig

  def setup(self) -> None:
    c = self.config
    self.members = [self._parameters(*group) for group in zip(c.names, c.modules, c.groups, strict=True)]
    if c.combine == "stack":
      self.stack_projection = Dense(c.num_classes, _even)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encode the arrays of the batch by all members.

    Args:
      batch: arrays by name.
      rng: one key per example. Each member has its own randomness. None: no randomness.
    Raises: ConfigError: in training, a member normalises with the statistics of the batch.
    """
    if rng is not None:
      _check_trainable(self.config)

    def encoded(module: Any, number: Array) -> dict[str, Encoded]:
      return module.encode(batch, rng=fold_in(rng, number))

    return _joined(self._each(encoded))

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Fuse the encodings of each member.

    Args:
      encoded: encodings by `encode`.
      rng: one key per example. None: no randomness.
    """

    def fused(module: Any, number: Array, own: dict[str, Encoded]) -> dict[str, Encoded]:
      return module.fuse(own, rng=fold_in(rng, number))

    return _joined(self._each(fused, self._own(encoded)))

  def project(self, encoded: dict[str, Encoded]) -> dict[str, Float[Array, "batch dim"]]:
    """Compute unit-norm embeddings: those of the members side by side. Cosines are the means of the members'."""
    found = self._each(lambda module, number, own: module.project(own), self._own(encoded))
    return {name: self._embedded([each[name] for each in found]) for name in encoded}

  def logit_scale(self) -> Float[Array, ""]:
    """Weighted mean of the members' factors of the similarities."""
    return self._mean(self._each(lambda module, number: module.logit_scale()))

  def logit_bias(self) -> Float[Array, ""]:
    """Weighted mean of the members' biases of the logits."""
    return self._mean(self._each(lambda module, number: module.logit_bias()))

  def class_logits(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> Float[Array, "batch classes"]:
    """Combined scores of the classes, from the encodings of all towers. Their softmax is the ensemble's probability."""
    return self._combined(self.member_class_logits(encoded, rng=rng))

  def member_class_logits(
    self, encoded: Mapping[str, Encoded], *, rng: Rngs = None
  ) -> Float[Array, "members batch classes"]:
    """Scores of the classes of each member. `rng` is that of `encode`, for the members' fusions."""
    scores = lambda module, number, own: module.class_logits(own, rng=fold_in(rng, number))
    return jnp.concatenate(self._each(scores, self._own(encoded)))

  def answer_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch answers"]:
    """Combined scores of the answers, from the pooled vector of `fuse`."""
    return self._combined(self._of_pooled("answer_logits", pooled))

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Combined scores of "no match" and "match", from the pooled vector of `fuse`."""
    return self._combined(self._of_pooled("match_logits", pooled))

  def predict(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> Float[Array, "batch"]:
    """Weighted mean of the members' predicted numbers. `rng` is that of `encode`, for the members' fusions."""
    numbers = lambda module, number, own: module.predict(own, rng=fold_in(rng, number))
    return self._mean(self._each(numbers, self._own(encoded)))

  def encode_image(self, images: Float[Array, "batch *image"]) -> Float[Array, "batch dim"]:
    """Compute unit-norm embeddings of images: those of the members side by side."""
    return self._embedded(self._each(lambda module, number: normalize(module.encode_image(images))))

  def encode_text(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch dim"]:
    """Compute unit-norm embeddings of texts: those of the members side by side."""
    return self._embedded(self._each(lambda module, number: normalize(module.encode_text(ids))))

  def __call__(self, batch: Batch) -> Any:
    """Run the layer over the members once, for `init`. The members are initialised with their own `__call__`."""
    return self.class_logits(self.encode(batch)) if self.config.combine == "stack" else ()

  def _parameters(self, name: str, module: nn.Module, group: tuple[ModelConfig, int]) -> Any:
    """Parameters of the members of a group, stacked."""
    if self.has_variable("params", name):
      return self.get_variable("params", name)
    return self.param(name, lambda key: jax.vmap(lambda k: init_params(module, k))(jax.random.split(key, group[1])))

  def _each(self, ask: Callable[..., Any], own: Sequence[Any] | None = None) -> list[Any]:
    """Results of `ask(module, number of the member, its own arrays)` by group, stacked along the first axis.

    Args:
      ask: the function.
      own: by group, arrays [batch, members, ...]. None: there are none.
    """
    found, first = [], 0
    for place, module in enumerate(self.config.modules):
      count = self.config.groups[place][1]
      numbers = first + jnp.arange(count)
      arrays = () if own is None else (own[place],)

      def one(params: Any, number: Array, *own: Any, module: nn.Module = module) -> Any:
        return module.apply({"params": params}, number, *own, method=ask)

      found.append(jax.vmap(one, in_axes=(0, 0, *(1 for _ in arrays)))(self.members[place], numbers, *arrays))
      first += count
    return found

  def _own(self, encoded: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Encodings of the members, by group."""
    return [{name: each.groups[place] for name, each in encoded.items()} for place in range(len(self.config.groups))]

  def _of_pooled(self, method: str, pooled: Float[Array, "batch width"]) -> Array:
    if len(self.config.groups) > 1:
      raise ConfigError(
        "an ensemble answers and matches only if its members have one configuration: leave out members of another one"
      )
    split = pooled.reshape(pooled.shape[0], len(self.config.models), -1)
    return self._each(lambda module, number, own: getattr(module, method)(own), [split])[0]

  def _combined(self, logits: Float[Array, "members batch classes"]) -> Float[Array, "batch classes"]:
    c = self.config
    if c.combine == "stack":
      logs = jnp.moveaxis(jax.nn.log_softmax(logits.astype(jnp.float32)), 0, 1)
      return self.stack_projection(logs.reshape(logs.shape[0], -1)) / c.temperature
    rule = votes if c.combine == "vote" else mean_of_probabilities
    return rule(logits, jnp.asarray(c.shares, jnp.float32)) / c.temperature

  def _embedded(self, found: Sequence[Float[Array, "members batch dim"]]) -> Float[Array, "batch total"]:
    shares, parts, first = jnp.asarray(self.config.shares, jnp.float32), [], 0
    for each in found:
      parts.append(side_by_side(each, shares[first : first + len(each)]))
      first += len(each)
    return jnp.concatenate(parts, axis=-1)

  def _mean(self, found: Sequence[Array]) -> Array:
    return jnp.tensordot(jnp.asarray(self.config.shares, jnp.float32), jnp.concatenate(found), axes=1)


def _joined(found: Sequence[Mapping[str, Any]]) -> dict[str, Encoded]:
  """Encodings by all members, from those of each group with the members on the first axis."""
  by_row = [jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), dict(each)) for each in found]
  return {name: _one([each[name] for each in by_row]) for name in by_row[0]}


def _one(groups: Sequence[Any]) -> EncodedByMembers:
  flat = lambda array: array.reshape(array.shape[0], -1)
  pooled = jnp.concatenate([flat(each.pooled) for each in groups], axis=-1)
  tokens, mask = pooled[:, None], jnp.ones((len(pooled), 1), bool)
  if len(groups) == 1:
    along = jnp.moveaxis(groups[0].tokens, 1, 2)
    tokens, mask = along.reshape(*along.shape[:2], -1), groups[0].mask.any(1)
  return EncodedByMembers(tokens, mask, pooled, tuple(groups))


def _check_trainable(config: EnsembleConfig) -> None:
  """Raise ConfigError if a tower keeps statistics of batches, which members under vmap cannot update."""
  for model in config.models:
    for name, tower in towers(model).items():
      if getattr(tower, "batch_statistics", False):
        raise ConfigError(
          f"the tower {name} of a member normalises with the statistics of the batch, and an ensemble does not train "
          "these: choose another norm, or train the members one by one and combine them"
        )


def _even(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """The mean of the members' log-probabilities of each class, as a kernel."""
  members, classes = shape[0] // shape[1], shape[1]
  return jnp.tile(jnp.eye(classes, dtype=dtype), (members, 1)) / members

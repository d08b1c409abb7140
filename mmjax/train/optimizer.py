"""The optimiser: an optax transformation, with multipliers and freezing per parameter by path rules."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.errors import ConfigError
from mmjax.nn.channel_norm import AVERAGES
from mmjax.objectives.losses.momentum import momentum_update
from mmjax.parallel.rules import match_rules
from mmjax.settings import OptimizerConfig
from mmjax.train.layers import decayed, on_top
from mmjax.train.schedule import make_schedule


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
  return make_schedule(
    config.schedule,
    peak=config.learning_rate,
    steps=steps,
    warmup=config.warmup_steps,
    cooldown=config.cooldown_steps,
    cycles=config.cycles,
  )


def trainable(config: OptimizerConfig, params: Any) -> Any:
  """Make the mask of trained parameters: False below `top_layers` and where an expression of `frozen` matches.

  Raises: ConfigError: no parameter is trained, or the settings do not fit the parameters.
  """
  rules = [(expression, False) for expression in config.frozen] + [(".*", True)]
  mask = match_rules(rules, params, purpose="freezing")
  if config.top_layers is not None:
    mask = jax.tree.map(lambda mine, top: mine and top, mask, on_top(params, config.top_layers))
  if not any(jax.tree.leaves(mask)):
    top = "" if config.top_layers is None else f" with optimizer.top_layers={config.top_layers}"
    raise ConfigError(f"optimizer.frozen={config.frozen}{top} freezes every parameter: nothing is left to train")
  return mask


def make_optimizer(
  config: OptimizerConfig, params: Any, steps: int, core: optax.GradientTransformation | None = None
) -> optax.GradientTransformation:
  """Make the optimiser: clipping, update rule, weight decay and learning rate with their multipliers, and freezing.

  Args:
    config: the settings.
    params: parameters or their shapes. The rules are matched against their paths.
    steps: number of optimiser steps of the whole run.
    core: optax transformation that replaces `config.algorithm`, such as `optax.scale_by_adopt()`.
  """
  # Statistics of the data are no weights: a rule such as ".*" does not mean them.
  decay = match_rules(((AVERAGES, 0.0), *config.weight_decay_rules), params, purpose="weight decay")
  rate = match_rules(config.learning_rate_rules, params, purpose="learning rate")
  if config.layer_decay != 1:
    rate = jax.tree.map(lambda rule, layer: rule * layer, rate, decayed(params, config.layer_decay))
  trained = trainable(config, params)
  train = optax.chain(
    optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
    core or _core(config),
    _add_decay(decay, config.weight_decay),
    _scale(rate),
    optax.scale_by_learning_rate(learning_rate(config, steps)),
  )
  if all(jax.tree.leaves(trained)):
    return _with_standard_promotion(train)
  labels = jax.tree.map(lambda t: "train" if t else "frozen", trained)
  parts = optax.transforms.partition({"train": train, "frozen": optax.set_to_zero()}, labels)
  return _with_standard_promotion(parts)


def _with_standard_promotion(inner: optax.GradientTransformation) -> optax.GradientTransformation:
  """Run a transformation with standard dtype promotion. Optax multiplies integers by floats, which strict refuses."""

  def init(params):
    with jax.numpy_dtype_promotion("standard"):
      return inner.init(params)

  def update(updates, state, params=None):
    with jax.numpy_dtype_promotion("standard"):
      return inner.update(updates, state, params)

  return optax.GradientTransformation(init, update)


def _core(config: OptimizerConfig) -> optax.GradientTransformation:
  """Make the update rule without learning rate and weight decay, which are added per parameter."""
  match config.algorithm:
    case "adam":
      return optax.scale_by_adam(config.b1, config.b2, config.epsilon)
    case "lion":
      return optax.scale_by_lion(config.b1, config.b2)
    case "adafactor":
      return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), optax.trace(config.b1))
    case "muon":
      return _muon_for_kernels(config)
    case "momentum":
      return optax.trace(config.b1, nesterov=True)


def _muon_for_kernels(config: OptimizerConfig) -> optax.GradientTransformation:
  """Muon (Jordan et al. 2024) on kernels, Adam on embeddings, norms and biases, as its authors advise."""

  def label(params):
    rules = (("kernel$", "kernel"), (".*", "other"))
    return match_rules(rules, params, purpose="muon")

  def matrix_axes(updates):
    # A scan over layers stacks kernels along leading axes. The last two axes are those of the matrix.
    return jax.tree.map(lambda u: optax.contrib.MuonDimensionNumbers(u.ndim - 2, u.ndim - 1), updates)

  return optax.transforms.partition(
    {
      "kernel": optax.contrib.scale_by_muon(beta=config.b1, weight_dimension_numbers=matrix_axes),
      "other": optax.scale_by_adam(config.b1, config.b2, config.epsilon),
    },
    label,
  )


def _add_decay(multipliers: Any, weight_decay: float) -> optax.GradientTransformation:
  def update(updates, params):
    return jax.tree.map(
      lambda u, p, m: u if m * weight_decay == 0 or isinstance(u, optax.MaskedNode) else u + m * weight_decay * p,
      updates,
      params,
      multipliers,
      is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )

  return optax.stateless(update)


def _scale(multipliers: Any) -> optax.GradientTransformation:
  def update(updates, params):
    del params
    return jax.tree.map(
      lambda u, m: u if m == 1 or isinstance(u, optax.MaskedNode) else m * u,
      updates,
      multipliers,
      is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )

  return optax.stateless(update)


def update_ema(ema: Any, params: Any, decay: float, step: jax.Array) -> Any:
  """Update the moving average of the parameters.

  The decay is at most (1 + step) / (10 + step), so that the initial parameters are soon forgotten.

  Args:
    ema: moving average.
    params: parameters after the step.
    decay: largest decay.
    step: number of optimiser steps before this one.
  Returns: the new moving average.
  """
  count = step.astype(jnp.float32)
  effective = jnp.minimum(jnp.float32(decay), (1 + count) / (10 + count))
  return momentum_update(ema, params, effective)

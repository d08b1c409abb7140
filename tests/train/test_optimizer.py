import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.errors import ConfigError
from mmjax.settings import OptimizerConfig
from mmjax.train.optimizer import make_optimizer, update_ema

PARAMS = {
  "image": {"kernel": jnp.full((3, 2), 2.0), "bias": jnp.full((2,), 2.0)},
  "text": {"kernel": jnp.full((2, 4), -1.0)},
}
GRADS = jax.tree.map(lambda p: jnp.arange(p.size, dtype=jnp.float32).reshape(p.shape) - 1.5, PARAMS)
PLAIN = OptimizerConfig(
  schedule="constant", warmup_steps=0, learning_rate=0.1, weight_decay=0.0, clip_norm=0.0, epsilon=1e-8
)


def updated(config, steps=1, core=None):
  optimizer = make_optimizer(config, PARAMS, 10, core)
  state, params = optimizer.init(PARAMS), PARAMS
  for _ in range(steps):
    updates, state = jax.jit(optimizer.update)(GRADS, state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def close(actual, expected):
  jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=2e-6, atol=1e-7), actual, expected)


def test_adam_with_decay_equals_optax_adamw():
  config = dataclasses.replace(PLAIN, weight_decay=0.3, weight_decay_rules=((".*", 1.0),))
  reference = optax.adamw(0.1, b1=config.b1, b2=config.b2, eps=config.epsilon, weight_decay=0.3)
  state, params = reference.init(PARAMS), PARAMS
  with jax.numpy_dtype_promotion("standard"):
    for _ in range(3):
      updates, state = reference.update(GRADS, state, params)
      params = optax.apply_updates(params, updates)
  close(updated(config, steps=3)[0], params)


def test_biases_are_not_decayed():
  config = dataclasses.replace(PLAIN, weight_decay=0.5)
  with_decay, without = updated(config)[0], updated(PLAIN)[0]
  close(with_decay["image"]["bias"], without["image"]["bias"])
  close(with_decay["image"]["kernel"], without["image"]["kernel"] - 0.1 * 0.5 * PARAMS["image"]["kernel"])


def test_no_rule_decays_running_averages():
  params = {"norm": {name: jnp.ones(3) for name in ("mean", "var", "scale")}}
  config = dataclasses.replace(PLAIN, weight_decay=0.5, weight_decay_rules=((".*", 1.0),))
  optimizer = make_optimizer(config, params, steps=1)
  updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
  assert {name: bool(update.any()) for name, update in updates["norm"].items()} == dict(
    mean=False, var=False, scale=True
  )


def test_learning_rate_multipliers():
  config = dataclasses.replace(PLAIN, learning_rate_rules=(("^text/", 0.25), (".*", 1.0)))
  slow, plain = updated(config)[0], updated(PLAIN)[0]
  close(slow["image"], plain["image"])
  close(
    slow["text"]["kernel"] - PARAMS["text"]["kernel"],
    0.25 * (plain["text"]["kernel"] - PARAMS["text"]["kernel"]),
  )


def test_frozen_parameters_stay_to_the_bit_and_have_no_state():
  config = dataclasses.replace(PLAIN, weight_decay=0.5, frozen=("^image/",))
  params, state = updated(config, steps=2)
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params["image"], PARAMS["image"]))
  assert not (params["text"]["kernel"] == PARAMS["text"]["kernel"]).any()
  shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
  assert (2, 4) in shapes and (3, 2) not in shapes


def test_freezing_everything_is_refused():
  with pytest.raises(ConfigError, match="freezes every parameter"):
    make_optimizer(dataclasses.replace(PLAIN, frozen=(".*",)), PARAMS, 10)


def test_clipping_scales_the_whole_gradient():
  config = dataclasses.replace(PLAIN, algorithm="momentum", b1=0.0, clip_norm=1.0)
  norm = optax.tree.norm(GRADS)
  close(updated(config)[0], jax.tree.map(lambda p, g: p - 0.1 * g / norm, PARAMS, GRADS))


@pytest.mark.parametrize("algorithm", ["lion", "adafactor", "muon", "momentum"])
@pytest.mark.parametrize("frozen", [(), ("^image/",)])
def test_every_algorithm_moves_against_the_gradient(algorithm, frozen):
  params, _ = updated(dataclasses.replace(PLAIN, algorithm=algorithm, frozen=frozen))
  moved = params["text"]["kernel"] - PARAMS["text"]["kernel"]
  assert float((moved * GRADS["text"]["kernel"]).sum()) < 0


def test_any_optax_transformation_can_be_the_core():
  config = dataclasses.replace(PLAIN, algorithm="adam")
  close(
    updated(config, core=optax.scale_by_sign())[0],
    jax.tree.map(lambda p, g: p - 0.1 * jnp.sign(g), PARAMS, GRADS),
  )


def test_the_average_forgets_its_start_and_then_decays():
  ema = {"w": jnp.zeros(())}
  first = update_ema(ema, {"w": jnp.ones(())}, 0.99, jnp.int32(0))
  late = update_ema(ema, {"w": jnp.ones(())}, 0.99, jnp.int32(100_000))
  assert float(first["w"]) == pytest.approx(1 - 1 / 10) and float(late["w"]) == pytest.approx(0.01, rel=1e-4)

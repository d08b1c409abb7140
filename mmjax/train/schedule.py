"""Learning rate schedules."""

import jax.numpy as jnp
import optax

from mmjax.settings import Schedule


def make_schedule(
  kind: Schedule, *, peak: float, steps: int, warmup: int, cooldown: int, cycles: int = 1
) -> optax.Schedule:
  """Make a schedule: linear warm-up, then cosine to zero, or reciprocal square root or constant with linear cooldown.

  Warm-up and cooldown take at most half of the steps. In a shorter run, both are shortened by the same factor.

  Args:
    kind: "cosine" decays to zero over all steps after the warm-up, without a cooldown. "rsqrt" follows
      sqrt(warmup / step) (Vaswani et al. 2017, equation 3; Zhai et al. 2022, section 3.5) until the cooldown.
      "constant" stays at the peak until the cooldown.
    peak: learning rate at the end of the warm-up.
    steps: number of optimiser steps of the whole run.
    warmup: number of steps of linear increase from 0.
    cooldown: number of steps of linear decrease to 0 at the end.
    cycles: number of cycles of the cosine (Huang et al. 2017, equation 2). With more than one, the warm-up multiplies
      the first cycle.
  """
  room = min(1.0, steps / 2 / max(warmup + cooldown, 1))
  warmup, cooldown = int(room * warmup), int(room * cooldown)
  ramp = optax.linear_schedule(0.0, peak, warmup)
  if cycles > 1:
    return _cycles(peak, steps, warmup, cycles)
  if kind == "cosine":
    main = optax.cosine_decay_schedule(peak, max(steps - warmup, 1))
    return optax.join_schedules([ramp, main], [warmup])
  timescale = float(max(warmup, 1))

  def decayed(step):  # steps since the warm-up
    step = jnp.maximum(jnp.asarray(step, jnp.float32), 0.0)
    plateau = peak * jnp.sqrt(timescale / (step + timescale)) if kind == "rsqrt" else jnp.float32(peak)
    return plateau * jnp.clip((steps - warmup - step) / max(cooldown, 1), 0.0, 1.0)

  return optax.join_schedules([ramp, decayed], [warmup])


def _cycles(peak: float, steps: int, warmup: int, cycles: int) -> optax.Schedule:
  def rate(step):
    step = jnp.asarray(step, jnp.float32)
    place = (step * cycles / steps) % 1.0
    return peak * (1 + jnp.cos(jnp.pi * place)) / 2 * jnp.minimum(1.0, (step + 1) / (warmup + 1))

  return rate

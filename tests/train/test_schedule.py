import math

import jax
import pytest

from mmjax.train.schedule import make_schedule


@pytest.fixture(autouse=True)
def standard_promotion():
  with jax.numpy_dtype_promotion("standard"):  # optax's schedules mix integers and floats
    yield


def values(kind, steps, **arguments):
  schedule = make_schedule(kind, peak=2.0, steps=100, **arguments)
  return [float(schedule(step)) for step in steps]


def test_cosine_by_hand():
  got = values("cosine", [0, 5, 10, 55, 100], warmup=10, cooldown=0)
  assert got == pytest.approx([0, 1, 2, 2 * (1 + math.cos(math.pi / 2)) / 2, 0], abs=1e-6)


def test_reciprocal_square_root_by_hand():
  # sqrt(16 / step) from the end of the warm-up on; the last 20 steps fall linearly on top of that.
  got = values("rsqrt", [8, 16, 64, 90, 100], warmup=16, cooldown=20)
  assert got == pytest.approx([1, 2, 2 * math.sqrt(16 / 64), 2 * math.sqrt(16 / 90) / 2, 0], abs=1e-6)


def test_constant_by_hand():
  assert values("constant", [0, 1, 50, 90, 100], warmup=0, cooldown=20) == pytest.approx([2, 2, 2, 1, 0])


def test_in_a_run_too_short_for_them_warm_up_and_cooldown_take_half_of_it():
  got = values("constant", [0, 10, 20, 70, 85, 100], warmup=200, cooldown=300)  # becomes 20 and 30 of 100
  assert got == pytest.approx([0, 1, 2, 2, 1, 0])


def test_cycles_of_the_cosine_by_hand():
  got = values("cosine", [0, 25, 50, 75, 99.99], warmup=0, cooldown=0, cycles=2)
  assert got == pytest.approx([2, 1, 2, 1, 0], abs=1e-3)

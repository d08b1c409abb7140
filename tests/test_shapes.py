"""Shapes in signatures are checked in every test (tests/shapes.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.pooling import mean_pool
from mmjax.objectives import clip_loss
from mmjax.types import Encoded
from tests.shapes import ShapeError, checked

A, B = jnp.ones((2, 3)), jnp.ones((4, 3))


@checked
def pair(x: Float[Array, "b d"], y: Float[Array, "b d"] | None = None, *more: Float[Array, " b"]) -> Float[Array, " d"]:
  return x[0]


def test_equal_names_are_equal_sizes():
  pair(A, A, jnp.ones(2))
  pair(np.ones((2, 3), np.float32))
  for arguments in ((A, B), (A, A, jnp.ones(2), jnp.ones(3)), (A[0],), (A.astype(jnp.int32),), (A, "text")):
    with pytest.raises(ShapeError, match="pair: (x|y|more) is"):
      pair(*arguments)
  with pytest.raises(ShapeError, match=r"pair: y is float32\[4, 3\], its annotation is .*'b d'"):
    jax.jit(pair)(A, B)
  jax.jit(jax.vmap(pair))(A[None], A[None])
  with pytest.raises(TypeError, match="missing a required|missing 1 required"):
    pair()


def test_results_containers_and_sizes_that_are_computed():
  @checked
  def parts(x: Float[Array, "b*t d"], ids: Int[Array, "b t"], kind: str) -> tuple[Float[Array, "t d"], str]:
    return (x[: ids.shape[1]] if kind == "right" else x), kind

  x, ids = jnp.ones((6, 5)), jnp.ones((2, 3), jnp.int32)
  parts(x, ids, "right")
  with pytest.raises(ShapeError, match=r"parts: its result is \[float32\[6, 5\], str 'wrong'\]"):
    parts(x, ids, "wrong")
  with pytest.raises(ShapeError, match=r"parts: x is float32\[5, 5\]"):
    parts(x[:5], ids, "right")

  @checked
  def several(named: dict[str, Float[Array, " b"]], listed: list[Bool[Array, " b"]]) -> None:
    pass

  several({"a": A[0]}, [A[0] > 0])
  with pytest.raises(ShapeError, match="several: listed"):
    several({"a": A[0]}, [A[0] > 0, B[:, 0] > 0])


def test_a_record_has_sizes_of_its_own():
  @checked
  def both(x: Encoded, y: Encoded) -> None:
    pass

  of = lambda length: Encoded(jnp.ones((2, length, 4)), jnp.ones((2, length), bool), jnp.ones((2, 7)))
  both(of(3), of(5))
  with pytest.raises(ShapeError, match=r"both: y is Encoded\(tokens=float32\[2, 5, 4\], mask=bool\[2, 3\]"):
    both(of(3), of(5).replace(mask=of(3).mask))


def test_without_arrays_a_function_stays_as_it_is():
  def plain(x: int, y: Array) -> str:
    return ""

  assert checked(plain) is plain


def test_the_functions_of_mmjax_are_checked():
  with pytest.raises(ShapeError, match=r"mmjax.nn.pooling.mean_pool: mask is bool\[2, 1\]"):
    mean_pool(jnp.ones((2, 3, 4)), jnp.ones((2, 1), bool))
  with pytest.raises(ValueError, match="must both be"):  # whoever refuses arguments itself says so in its own words
    clip_loss(A, B, logit_scale=1.0)

"""Every kind of fusion equals its equation, spelled out in numpy."""

import jax
import numpy as np
import pytest

from mmjax.fusion import sketch_constants
from tests.fusion import reference
from tests.fusion.cases import INPUTS, KINDS, TOKENS, WIDTH, apply, every_params, modality, params, run_all

THREE = tuple(kind for kind in KINDS if kind != "bilinear")
VECTORS = tuple(kind for kind in KINDS if kind not in (*TOKENS, "late"))


@pytest.fixture(scope="module")
def fused():
  return run_all(every_params(), INPUTS)


def _expected(kind, inputs, depth=2):
  """(tokens or None, pooled) of every example."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params(kind, len(inputs)))
  inputs = [jax.tree.map(np.asarray, e) for e in inputs]
  sketches = [sketch_constants(WIDTH, WIDTH, seed=0, modality=i) for i in range(len(inputs))]
  for row in range(8):
    tokens, masks = [e.tokens[row].astype(np.float64) for e in inputs], [e.mask[row] for e in inputs]
    vectors = [e.pooled[row].astype(np.float64) for e in inputs]
    if kind in TOKENS:
      yield reference.TOKENS[kind](p, tokens, masks, depth)
    elif kind == "late":
      yield reference.late(p, vectors, masks)
    else:
      vector = reference.fuse_vectors(kind, p.get("operator"), vectors, sketches)
      yield vector[None], vector


def _assert_equal(ours, expected):
  for row, (tokens, pooled) in enumerate(expected):
    real = np.asarray(ours.mask[row])
    np.testing.assert_allclose(ours.tokens[row][real], tokens[real], rtol=5e-5, atol=5e-5)
    np.testing.assert_allclose(ours.pooled[row], pooled, rtol=5e-5, atol=5e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_two_modalities_equal_numpy(fused, kind):
  _assert_equal(fused[kind][0], _expected(kind, INPUTS))


@pytest.mark.parametrize("kind", THREE)
def test_three_modalities_equal_numpy(kind):
  inputs = (*INPUTS, modality(2, 2))
  _assert_equal(jax.jit(lambda: apply(kind, inputs, depth=1))(), _expected(kind, inputs, depth=1))

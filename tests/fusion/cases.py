"""One small batch, the parameters of every kind of fusion, and one compiled program that runs them all."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.fusion import FusionConfig, FusionKind, make_fusion
from mmjax.fusion.config import GRAPHS, TRANSFORMERS
from mmjax.types import Encoded

KINDS = get_args(FusionKind)
BLOCKS = tuple(kind for kind in KINDS if kind in TRANSFORMERS)
TOKENS = tuple(kind for kind in KINDS if kind in TRANSFORMERS | GRAPHS)
WIDTH, DEPTH = 8, 2


def config(kind: str, **fields) -> FusionConfig:
  sizes = dict(width=WIDTH, depth=DEPTH, num_heads=2, mlp_dim=12, rank=3, bottlenecks=2, own_edges=1, cross_edges=2)
  return FusionConfig(kind=kind, **(sizes | fields))


def modality(seed: int, length: int, batch: int = 8) -> Encoded:
  """Random tokens; every example has another number of real ones, and at least one."""
  random = np.random.default_rng(seed)
  mask = np.arange(length)[None] < 1 + (np.arange(batch)[:, None] + seed) % length
  tokens = random.standard_normal((batch, length, WIDTH)).astype(np.float32)
  pooled = random.standard_normal((batch, WIDTH)).astype(np.float32)
  return Encoded(jnp.asarray(tokens), jnp.asarray(mask), jnp.asarray(pooled))


INPUTS = (modality(0, 4), modality(1, 3))


@functools.cache
def params(kind: str, modalities: int = 2):
  """Numbers of the size a trained model has, biases too: initial values are so small that they hide mistakes."""
  inputs = [modality(i, 4 - i) for i in range(modalities)]
  shapes = jax.eval_shape(make_fusion(config(kind)).init, jax.random.key(0), *inputs).get("params", {})
  random = np.random.default_rng(0)
  return jax.tree.map(lambda p: (0.4 * random.standard_normal(p.shape)).astype(p.dtype), shapes)


def apply(kind: str, inputs, parameters=None, **fields) -> Encoded:
  parameters = params(kind, len(inputs)) if parameters is None else parameters
  return make_fusion(config(kind, **fields)).apply({"params": parameters}, *inputs)


@functools.partial(jax.jit, static_argnames="dtype")
def say_all(every, inputs, dtype="float32"):
  """{kind: fused}, one program."""
  return {kind: apply(kind, inputs, every[kind], dtype=dtype) for kind in KINDS}


@jax.jit
def run_all(every, inputs):
  """{kind: (fused, gradient in the parameters, gradient in the inputs' tokens and pooled vectors)}, one program."""
  return {kind: _run(kind, every[kind], inputs) for kind in KINDS}


def _run(kind, parameters, inputs):
  def loss(parameters, vectors):
    read = [e.replace(tokens=tokens, pooled=pooled) for e, (tokens, pooled) in zip(inputs, vectors, strict=True)]
    fused = apply(kind, read, parameters)
    real = jnp.where(fused.mask[:, :, None], jnp.sin(fused.tokens), 0.0)
    return real.sum() + jnp.cos(fused.pooled).sum(), fused

  grads, fused = jax.grad(loss, argnums=(0, 1), has_aux=True)(parameters, [(e.tokens, e.pooled) for e in inputs])
  return fused, *grads


def every_params():
  return {kind: params(kind) for kind in KINDS}

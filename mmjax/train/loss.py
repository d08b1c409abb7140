"""The loss of one step: encoders and fusion once for all terms, in microbatches; then their weighted sum."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

from mmjax.objectives.balance import uncertainty_weighted
from mmjax.objectives.pair_terms import MomentumContrastive
from mmjax.objectives.term import ExampleTerm, Forward, Term, weighted_mean
from mmjax.objectives.terms import Contrastive, PairLoss
from mmjax.parallel.mesh import BATCH_AXES
from mmjax.parallel.microbatch import microbatch
from mmjax.train.state import Params, TrainState
from mmjax.types import Batch

Metrics = dict[str, Array]
Loss = Callable[[Params, TrainState, Batch, Array], tuple[Float[Array, ""], tuple[Metrics, Any]]]
BALANCE = "balance"
"""Where the learned log variances of the terms stand among the parameters (uncertainty weighting)."""


def make_loss(
  model: nn.Module,
  objectives: Sequence[Term],
  *,
  mesh: Mesh,
  microbatches: int,
  losses: Mapping[str, PairLoss],
) -> Loss:
  """loss(params, state, batch, keys) -> (loss, (metrics, what the terms remember)).

  Args: as for make_step. The state is read for its step, for the moving average (the teacher), and for what terms
  remember from step to step; `keys` hold one key per row.
  """
  pairs = [o for o in objectives if isinstance(o, Contrastive)]
  singles = [o for o in objectives if isinstance(o, ExampleTerm)]
  momentum = [o for o in objectives if isinstance(o, MomentumContrastive)]
  pupils = [o for o in singles if o.teacher]
  taught_between = sorted({name for o in momentum for name in o.between})
  between = sorted({*taught_between, *(name for o in pairs for name in o.between)})
  together = math.lcm(*(o.together for o in singles))
  forward = over_rows(_speaker(model, between, singles), mesh, microbatches, together)
  teach = over_rows(_teacher(model, taught_between, pupils), mesh, microbatches, together)
  read = sorted({*between, *(name for o in singles for name in o.needs)})

  def loss_fn(params: Params, state: TrainState, batch: Batch, keys: Array) -> Any:
    rows = {name: batch[name] for name in read}
    whole = state.ema, state.step
    old, taught = jax.lax.stop_gradient(teach(whole, (rows, keys))) if momentum or pupils else ({}, {})
    embeddings, scores = forward((params, state.step), (rows, keys, taught))
    metrics, memory = _means(scores), {}
    if between:
      scale: Any = model.apply({"params": params}, method="logit_scale")
      bias: Any = _bias(model, params)
      common: Any = dict(logit_scale=scale, mesh=mesh, batch_axes=BATCH_AXES)
      metrics |= {"logit_scale": scale, "logit_bias": bias}
      metrics |= {o.name: o(embeddings, batch, loss=losses[o.loss], logit_bias=bias, **common) for o in pairs}
      for o in momentum:
        metrics[o.name], memory[o.name] = o(embeddings, old, state.memory[o.name], batch, step=state.step, **common)
    return _total(objectives, metrics, params, state.step), (metrics, memory or None)

  return loss_fn


def _bias(model: nn.Module, params: Params) -> Any:
  """The logit bias; 0 for a model that knows none."""
  return model.apply({"params": params}, method="logit_bias") if hasattr(model, "logit_bias") else jnp.zeros(())


def over_rows(fn: Callable[[Any, Any], Any], mesh: Mesh, microbatches: int, together: int) -> Callable[[Any, Any], Any]:
  """(whole, rows) -> rows of the results: fn on each device's own rows, a microbatch at a time; all have `whole`.

  That many consecutive rows stay `together` in any number of microbatches.
  """

  def pieces(whole: Any, rows: Any) -> Any:
    return microbatch(lambda piece: fn(whole, piece), microbatches, together=together)(rows)

  if mesh.size == 1 or mesh.shape["model"] > 1:
    return pieces
  # Manual over the batch axes, so that each device sums its gradient over its own microbatches and layers, and the
  # all-reduce runs once, after the loops; under plain jit (which a split model needs) it runs in every iteration, and
  # on an fsdp mesh the partitioner may split activations along their width, which makes them many times larger.
  rows, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
  return jax.shard_map(
    pieces,
    mesh=mesh,
    in_specs=(whole, rows),
    out_specs=rows,
    check_vma=False,  # the parameters' cotangents are summed at this boundary, not inside
  )


def _speaker(model: nn.Module, between: Sequence[str], singles: Sequence[ExampleTerm]) -> Callable[[Any, Any], Any]:
  """((params, step), (batch, keys, taught)) -> (unit-norm embeddings by name, scores by term)."""
  names = tuple(sorted({*between, *(name for o in singles for name in o.reads)}))

  def speak(module: Any, step: Array, batch: Batch, keys: Array, taught: Mapping[str, Any]) -> Any:
    forward = Forward(module, batch, keys, step, names, training=True)
    embeddings = module.project({name: forward.encoded[name] for name in between}) if between else {}
    return embeddings, {o.name: {k: tuple(v) for k, v in o(forward, taught.get(o.name)).items()} for o in singles}

  return lambda whole, rows: model.apply({"params": whole[0]}, whole[1], *rows, method=speak)


def _teacher(model: nn.Module, between: Sequence[str], pupils: Sequence[ExampleTerm]) -> Callable[[Any, Any], Any]:
  """((moving average, step), (batch, keys)) -> (its embeddings by name, what it teaches each term that asks)."""
  names = tuple(sorted({*between, *(name for o in pupils for name in o.reads)}))

  def teach(module: Any, step: Array, batch: Batch, keys: Array) -> Any:
    forward = Forward(module, batch, keys, step, names, training=False)
    embeddings = module.project({name: forward.encoded[name] for name in between}) if between else {}
    return embeddings, {o.name: o.teach(forward) for o in pupils}

  return lambda whole, rows: model.apply({"params": whole[0]}, whole[1], *rows, method=teach)


def _means(scores: Mapping[str, Mapping[str, tuple[Array, Array]]]) -> Metrics:
  """Means over the global batch: a term's loss under its name, its other scores as NAME_SCORE."""
  return {
    term if score == "loss" else f"{term}_{score}": weighted_mean(values, weights)
    for term, found in scores.items()
    for score, (values, weights) in found.items()
  }


def _total(objectives: Sequence[Term], metrics: Metrics, params: Params, step: Array) -> Float[Array, ""]:
  """The weighted sum, of which learned variances may make another (uncertainty weighting)."""
  weighted = {o.name: o.weight_at(step) * metrics[o.name] for o in objectives}
  if BALANCE in params:
    return uncertainty_weighted(weighted, params[BALANCE])
  return sum(weighted.values(), start=jnp.zeros(()))

"""The loss of one step: encoders and fusion once for all terms, in microbatches; then their weighted sum."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

from mmjax.objectives.term import Forward, PerExample, Term, term_rng, weighted_mean
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
  singles = [o for o in objectives if isinstance(o, PerExample)]
  pupils = [o for o in singles if o.teacher]
  forward = over_rows(_speaker(model, pairs, singles), mesh, microbatches)
  teach = over_rows(_teacher(model, pupils), mesh, microbatches)
  read = sorted({name for o in pairs for name in o.between} | {name for o in singles for name in o.needs})

  def loss_fn(params: Params, state: TrainState, batch: Batch, keys: Array) -> Any:
    rows = {name: batch[name] for name in read}
    taught = jax.lax.stop_gradient(teach(state.ema, (rows, keys))) if pupils else {}
    embeddings, scores = forward(params, (rows, keys, taught))
    metrics: Metrics = {}
    if pairs:
      scale: Any = model.apply({"params": params}, method="logit_scale")
      bias: Any = model.apply({"params": params}, method="logit_bias")
      common: Any = dict(logit_scale=scale, logit_bias=bias, mesh=mesh, batch_axes=BATCH_AXES)
      metrics |= {"logit_scale": scale, "logit_bias": bias}
      metrics |= {o.name: o(embeddings, batch, loss=losses[o.loss], **common) for o in pairs}
    metrics |= _means(scores)
    return _total(objectives, metrics, params, state.step), (metrics, state.memory)

  return loss_fn


def over_rows(fn: Callable[[Params, Any], Any], mesh: Mesh, microbatches: int) -> Callable[[Params, Any], Any]:
  """(params, rows) -> rows of the results: fn on each device's own rows, a microbatch at a time."""

  def pieces(params: Params, rows: Any) -> Any:
    return microbatch(lambda piece: fn(params, piece), microbatches)(rows)

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


def _speaker(
  model: nn.Module, pairs: Sequence[Contrastive], singles: Sequence[PerExample]
) -> Callable[[Params, Any], Any]:
  """(params, (batch, keys, taught)) -> (unit-norm embeddings by name, scores by term)."""
  between = sorted({name for o in pairs for name in o.between})
  names = tuple(sorted({*between, *(name for o in singles for name in o.reads)}))

  def speak(module: Any, batch: Batch, keys: Array, taught: Mapping[str, Any]) -> Any:
    forward = Forward(module, batch, keys, names)
    embeddings = module.project({name: forward.encoded[name] for name in between}) if between else {}
    return embeddings, {o.name: dict(o(forward, term_rng(keys, o.name), taught.get(o.name))) for o in singles}

  return lambda params, rows: model.apply({"params": params}, *rows, method=speak)


def _teacher(model: nn.Module, pupils: Sequence[PerExample]) -> Callable[[Params, Any], Any]:
  """(moving average, (batch, keys)) -> what it teaches each term that has a teacher, by the term's name."""
  names = tuple(sorted({name for o in pupils for name in o.reads}))

  def teach(module: Any, batch: Batch, keys: Array) -> Any:
    forward = Forward(module, batch, None, names)  # the teacher drops nothing
    return {o.name: o.teach(forward, term_rng(keys, o.name)) for o in pupils}

  return lambda params, rows: model.apply({"params": params}, *rows, method=teach)


def _means(scores: Mapping[str, Mapping[str, tuple[Array, Array]]]) -> Metrics:
  """Means over the global batch: a term's loss under its name, its other scores as NAME_SCORE."""
  return {
    term if score == "loss" else f"{term}_{score}": weighted_mean(values, weights)
    for term, found in scores.items()
    for score, (values, weights) in found.items()
  }


def _total(objectives: Sequence[Term], metrics: Metrics, params: Params, step: Array) -> Float[Array, ""]:
  """The weighted sum; with learned log variances s of the terms, exp(-s) L + s / 2 (Kendall et al. 2018)."""
  weighted = {o.name: o.weight_at(step) * metrics[o.name] for o in objectives}
  if BALANCE in params:
    learned = params[BALANCE]
    weighted = {name: jnp.exp(-learned[name]) * loss + learned[name] / 2 for name, loss in weighted.items()}
  return sum(weighted.values(), start=jnp.zeros(()))

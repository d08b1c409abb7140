"""The loss of one step. Encoders and fusion run once for all terms, in microbatches. Then the terms are summed."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

from mmjax.models.protocols import Compares
from mmjax.nn.channel_norm import STATISTICS
from mmjax.objectives.losses.balance import uncertainty_weighted
from mmjax.objectives.terms.base import AVERAGE, BatchTerm, ExampleTerm, Forward, Term, Whole, named_keys, weighted_mean
from mmjax.parallel.mesh import BATCH_AXES
from mmjax.parallel.microbatch import microbatch
from mmjax.parallel.rules import match_rules
from mmjax.train.parameters import BALANCE, TERMS
from mmjax.train.state import Params, TrainState
from mmjax.types import Batch

Metrics = dict[str, Array]
Aux = tuple[Metrics, Any, Mapping[str, Any]]
Loss = Callable[[Params, TrainState, Batch, Array, Mapping[str, Params]], tuple[Float[Array, "..."], Aux]]


def make_loss(
  model: nn.Module,
  objectives: Sequence[Term],
  *,
  mesh: Mesh,
  microbatches: int,
  teachers: Mapping[str, nn.Module] = MappingProxyType({}),
  apart: bool = False,
) -> Loss:
  """Make the loss function: loss(params, state, batch, keys, frozen) -> (loss, (metrics, memory of the terms,
  statistics of batch norm)).

  The terms of a stream share one forward pass over its rows. The loss reads the step, the moving average (a teacher)
  and the memory of the terms from the state. `keys` has one key per row, and is by stream if the batch is. `frozen` has
  the parameters of the frozen teachers by name.

  Args:
    model, objectives, mesh, microbatches: as for make_step.
    teachers: modules of frozen teachers, by the names that the terms use.
    apart: the loss is an array of the weighted terms in their order, instead of their sum.
  """
  by_stream = {
    stream: _of_stream(model, [o for o in objectives if o.stream == stream], mesh, microbatches, teachers)
    for stream in dict.fromkeys(o.stream for o in objectives)
  }

  def loss_fn(params: Params, state: TrainState, batch: Batch, keys: Any, frozen: Mapping[str, Params]) -> Any:
    metrics: Metrics = {}
    memory: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    for stream, terms_of in by_stream.items():
      found, kept, seen = terms_of(params, state, stream_rows(batch, stream), stream_rows(keys, stream), frozen)
      metrics |= found
      memory |= kept
      statistics = _joined(statistics, seen)
    total = _weighted(objectives, metrics, state.step) if apart else _total(objectives, metrics, params, state.step)
    return total, (metrics, memory or None, statistics)

  return loss_fn


def stream_rows(batch: Any, stream: str) -> Any:
  """Rows of one stream. A batch of a run with streams is a mapping of their names to batches; others are flat."""
  return batch[stream] if has_streams(batch) else batch


def has_streams(batch: Any) -> bool:
  """True for a mapping of stream names to batches (or to keys). The rows of data.source have the name ""."""
  return isinstance(batch, Mapping) and "" in batch


def _of_stream(
  model: nn.Module, objectives: Sequence[Term], mesh: Mesh, microbatches: int, teachers: Mapping[str, nn.Module]
) -> Callable[..., tuple[Metrics, dict[str, Any], dict[str, Any]]]:
  """(params, state, rows, keys, frozen) -> (metrics of one stream's terms, their memory, statistics of batch norm)."""
  together = math.lcm(*(o.together for o in objectives if isinstance(o, ExampleTerm)))
  mapped = lambda fn: over_rows(fn, mesh, microbatches, together)
  students = [(terms, mapped(_student(model, terms))) for terms in _by_reach(objectives)]
  paired = {o.key: mapped(_paired(model, o)) for o in _fetching(objectives)}
  modules = {AVERAGE: model, **teachers}
  taught_by = {o.teacher: modules[o.teacher] for o in objectives if o.teacher is not None}
  teach = {
    name: mapped(_teacher(module, [o for o in objectives if o.teacher == name])) for name, module in taught_by.items()
  }
  read = sorted({name for o in objectives for name in (*_compared([o], "encodes"), *o.needs)})

  def terms_of(params: Params, state: TrainState, batch: Batch, keys: Array, frozen: Mapping[str, Params]) -> Any:
    rows = {name: batch[name] for name in read}
    teaching = {AVERAGE: state.ema, **frozen}
    said = {name: jax.lax.stop_gradient(fn((teaching[name], state.step), (rows, keys))) for name, fn in teach.items()}
    lessons = {term: lesson for _, by_term in said.values() for term, lesson in by_term.items()}
    metrics: Metrics = {}
    memory: dict[str, Any] = {}
    statistics: dict[str, Any] = {}
    for terms, forward in students:
      moved = _reached(params, terms[0].moves)
      mine = {o.key: lessons[o.key] for o in terms if o.key in lessons}
      (embeddings, scores, encoded), seen = forward((moved, state.step), (rows, keys, mine))
      statistics |= seen
      metrics |= _means(scores)
      scale = bias = jnp.zeros(())
      if embeddings:
        scale, bias = _ask(model, moved, "logit_scale"), _ask(model, moved, "logit_bias")
        metrics |= {"logit_scale": scale, "logit_bias": bias}

      def whole(
        term: Term, moved: Any = moved, embeddings: Any = embeddings, scale: Array = scale, bias: Array = bias
      ) -> Whole:
        name = term.teacher
        return Whole(
          embeddings=embeddings,
          taught={} if name is None else said[name][0],
          batch=batch,
          memory=None if state.memory is None else state.memory.get(term.key),
          step=state.step,
          logit_scale=scale,
          logit_bias=bias,
          taught_scale=scale if name is None else _ask(taught_by[name], teaching[name], "logit_scale"),
          mesh=mesh,
          axes=BATCH_AXES,
          own=moved.get(TERMS, {}).get(term.key),
        )

      for later in _fetching(terms):
        fetched = later.fetch(whole(later), encoded, named_keys(keys, later.name))
        metrics |= _means({later.key: paired[later.key]((moved, state.step), (rows, keys, encoded, fetched))})
      for term in terms:
        if isinstance(term, BatchTerm):
          value, kept = term.over_batch(whole(term))
          metrics[term.key] = value + metrics[term.key] if term.key in metrics else value
          memory |= {} if kept is None else {term.key: kept}
    return metrics, memory, statistics

  return terms_of


def _joined(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
  """The statistics of two streams, side by side: rows of arrays, in nested dictionaries."""
  both = {}
  for name in (*one, *(name for name in two if name not in one)):
    parts = [each[name] for each in (one, two) if name in each]
    joined = _joined if isinstance(parts[0], Mapping) else lambda a, b: jnp.concatenate([a, b])
    both[name] = parts[0] if len(parts) == 1 else joined(*parts)
  return both


def _by_reach(objectives: Sequence[Term]) -> list[list[Term]]:
  """Group the terms by `moves`. A group shares one forward pass."""
  groups: dict[tuple[str, ...], list[Term]] = {}
  for term in objectives:
    groups.setdefault(term.moves, []).append(term)
  return list(groups.values())


def _reached(params: Params, moves: tuple[str, ...]) -> Params:
  """Stop the gradient of parameters that match no expression of `moves`. If it is empty, all parameters get one."""
  if not moves:
    return params
  mask = match_rules([*((expression, True) for expression in moves), (".*", False)], params, purpose="moves")
  return jax.tree.map(lambda leaf, moved: leaf if moved else jax.lax.stop_gradient(leaf), params, mask)


def _ask(model: nn.Module, params: Params, method: str) -> Any:
  return model.apply({"params": params}, method=method)


def over_rows(fn: Callable[[Any, Any], Any], mesh: Mesh, microbatches: int, together: int) -> Callable[[Any, Any], Any]:
  """Make a function (whole, rows) -> rows of results, which runs `fn` on each device's rows in microbatches.

  Args:
    fn: function of (whole, rows of a microbatch).
    mesh: the mesh. Rows are split over its batch axes; every device gets all of `whole`.
    microbatches: number of microbatches per device.
    together: number of consecutive rows that stay in one microbatch.
  """

  def pieces(whole: Any, rows: Any) -> Any:
    return microbatch(lambda piece: fn(whole, piece), microbatches, together=together)(rows)

  if mesh.size == 1 or mesh.shape["model"] > 1:
    return pieces
  # Manual over the batch axes: each device sums its gradient over its own microbatches and layers, and the all-reduce
  # runs once, after the loops. Under plain jit, which a model axis needs, the all-reduce runs in every iteration. Also,
  # on an fsdp mesh the partitioner may split activations along their width, which makes them many times larger.
  rows, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
  return jax.shard_map(
    pieces,
    mesh=mesh,
    in_specs=(whole, rows),
    out_specs=rows,
    check_vma=False,  # cotangents of the parameters are summed at this boundary, not inside
  )


def _compared(terms: Sequence[Term], names: Literal["embeds", "encodes"]) -> set[str]:
  """Names of the embeddings that terms compare, or of the arrays that are encoded for them."""
  return {name for term in terms if isinstance(term, BatchTerm) for name in getattr(term, names)}


def _fetching(terms: Sequence[Term]) -> list[ExampleTerm]:
  """Terms that read encodings of other rows of the global batch."""
  return [term for term in terms if isinstance(term, ExampleTerm) and term.fetches]


def _encoded(terms: Sequence[Term]) -> tuple[str, ...]:
  """Names of the arrays that the towers encode for some terms."""
  return tuple(
    sorted(_compared(terms, "encodes") | {n for term in terms if isinstance(term, ExampleTerm) for n in term.reads})
  )


def _embeddings(module: Any, forward: Forward, terms: Sequence[Term]) -> dict[str, Array]:
  found = {name for term in _fetching(terms) if Compares in term.asks for name in term.reads}
  names = sorted(_compared(terms, "embeds") | found)
  return module.project({name: forward.encoded[name] for name in names}) if names else {}


def _student(model: nn.Module, terms: Sequence[Term]) -> Callable[[Any, Any], Any]:
  """((params, step), (batch, keys, lessons)) -> ((embeddings, scores by term, encodings by name), statistics).

  Embeddings are unit-norm, by name. Terms that fetch have no scores yet. The encodings are those that they read.
  """
  later = _fetching(terms)
  over = [term for term in terms if isinstance(term, ExampleTerm) and term not in later]
  kept = sorted({name for term in later for name in term.reads})

  def speak(module: Any, step: Array, batch: Batch, keys: Array, lessons: Mapping[str, Any]) -> Any:
    forward = Forward(module, batch, keys, step, _encoded(terms), training=True)
    scores = {o.key: _scores(o, forward, lessons.get(o.key)) for o in over}
    return _embeddings(module, forward, terms), scores, {name: forward.encoded[name] for name in kept}

  def student(whole: Any, rows: Any) -> Any:
    said, seen = model.apply({"params": whole[0]}, whole[1], *rows, method=speak, mutable=[STATISTICS])
    return said, seen.get(STATISTICS, {})

  return student


def _paired(model: nn.Module, term: ExampleTerm) -> Callable[[Any, Any], Any]:
  """((params, step), (batch, keys, encodings by name, fetched encodings)) -> scores of a term that fetches."""

  def speak(module: Any, step: Array, batch: Batch, keys: Array, encoded: dict[str, Any], fetched: Any) -> Any:
    return _scores(term, Forward(module, batch, keys, step, (), training=True, encoded=encoded), fetched)

  return lambda whole, rows: model.apply({"params": whole[0]}, whole[1], *rows, method=speak)


def _scores(term: ExampleTerm, forward: Forward, taught: Any) -> dict[str, tuple[Array, Array]]:
  return {name: (values, weights) for name, (values, weights) in term.over_rows(forward, taught).items()}


def _teacher(model: nn.Module, pupils: Sequence[Term]) -> Callable[[Any, Any], Any]:
  """((parameters of the teacher, step), (batch, keys)) -> (its embeddings by name, `teach` of each ExampleTerm)."""

  def teach(module: Any, step: Array, batch: Batch, keys: Array) -> Any:
    forward = Forward(module, batch, keys, step, _encoded(pupils), training=False)
    embeddings = _embeddings(module, forward, pupils)
    return embeddings, {o.key: o.teach(forward) for o in pupils if isinstance(o, ExampleTerm)}

  return lambda whole, rows: model.apply({"params": whole[0]}, whole[1], *rows, method=teach)


def _means(scores: Mapping[str, Mapping[str, tuple[Array, Array]]]) -> Metrics:
  """Means over the global batch: the loss of a term under its name, its other scores under NAME_SCORE."""
  return {
    term if score == "loss" else f"{term}_{score}": weighted_mean(values, weights)
    for term, found in scores.items()
    for score, (values, weights) in found.items()
  }


def _weighted(objectives: Sequence[Term], metrics: Metrics, step: Array) -> Float[Array, "terms"]:
  """The weighted terms."""
  return jnp.stack([o.weight_at(step) * metrics[o.key] for o in objectives])


def _total(objectives: Sequence[Term], metrics: Metrics, params: Params, step: Array) -> Float[Array, ""]:
  """The weighted sum of the terms, with learned variances if the terms are balanced by uncertainty."""
  weighted = {o.key: o.weight_at(step) * metrics[o.key] for o in objectives}
  if BALANCE in params:
    return uncertainty_weighted(weighted, params[BALANCE])
  return sum(weighted.values(), start=jnp.zeros(()))

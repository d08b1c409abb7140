"""The engine: every objective, every way round the mesh, and what the compiler makes of it."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.objectives import Pairwise, clip_loss, pairwise_loss, pairwise_statistics, siglip_loss, similarity
from mmjax.objectives.losses.contrastive import CLIP, SIGLIP
from mmjax.objectives.losses.distillation import DISTILL
from mmjax.objectives.losses.labelled import SUPCON, UNICL
from mmjax.objectives.losses.margin import HINGE, SEMI_HARD, TRIPLET
from mmjax.objectives.losses.reweighted import DCL, FOCAL
from mmjax.objectives.losses.smoothed import ALIGN
from tests.objectives import dense

N, D = 12, 6

# Written as a reader of the documentation would write one: all four reductions, in both directions.
EVERYTHING = Pairwise(
  tile=lambda row, col: {
    "top": similarity(row["x"], col["y"]),
    "mass": 2 * similarity(row["x"], col["y"], row["scale"]),
    "mean": (similarity(row["x"], col["y"], row["scale"]), similarity(row["x"], col["y"]) ** 2),
    "total": jnp.sin(similarity(row["x"], col["y"])),
  },
  reduce={"top": ("both", "max"), "mass": ("row", "lse"), "mean": ("both", "softmean"), "total": ("col", "sum")},
  finish=lambda stats, row, col: (
    stats["top"][0] * stats["mass"] + stats["mean"][0] ** 2,
    jnp.cos(stats["top"][1]) * stats["mean"][1] * stats["total"],
  ),
)

# An affine objective with statistics of both sides, averaged over each by itself.
HINGE_BOTH = Pairwise(HINGE.tile, HINGE.reduce, lambda stats, row, col: (stats["images"], stats["texts"]), affine=True)


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def sides(rows=N, columns=N):
  """Everything any objective reads."""
  number, unit = partial(jnp.asarray, dtype=jnp.float64), partial(dense.unit, dtype=jnp.float64)
  scalars = {"scale": number(6.0), "bias": number(-2.0), "gamma": number(1.5), "margin": number(0.3)}
  scalars |= {"slack": number(0.1), "smoothing": number(0.2)}
  row = {"x": unit(rows, D, 0), "teacher": unit(rows, 4, 1), "teacher_scale": number(3.0)}
  row |= {"pair": unit(rows, 2, 2)[:, 0], "id": jnp.arange(rows) % 5} | scalars
  column = {"y": unit(columns, D, 3), "teacher": unit(columns, 4, 4), "pair": unit(columns, 2, 5)[:, 0]}
  return row, column | {"id": jnp.arange(columns) % 5, "slack": number(0.1)}


def value_and_gradients(loss, row, column):
  """With respect to every floating-point feature."""
  ids = row["id"], column["id"]
  floats = [{name: leaf for name, leaf in side.items() if name != "id"} for side in (row, column)]
  call = lambda row, column, ids: loss(row | {"id": ids[0]}, column | {"id": ids[1]})
  return jax.value_and_grad(call, (0, 1))(*floats, ids)


def specs(side, axes):
  return {name: P(axes) if leaf.ndim else P() for name, leaf in side.items()}


OBJECTIVES = {
  "clip": CLIP,
  "siglip": SIGLIP,
  "focal": FOCAL,
  "dcl": DCL,
  "unicl": UNICL,
  "supcon": SUPCON,
  "distillation": DISTILL,
  "hinge": HINGE,
  "triplet": TRIPLET,
  "semi_hard": SEMI_HARD,
  "align": ALIGN,
  "everything": EVERYTHING,
}


@pytest.fixture(scope="module")
def dense_results():
  with jax.enable_x64(True):
    every = lambda *s: {
      name: value_and_gradients(partial(dense.objective_mean, o), *s) for name, o in OBJECTIVES.items()
    }
    return jax.jit(every)(*sides())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_equals_dense_autodiff_of_its_own_tile(x64, dense_results, name):
  mesh, axes = dense.mesh_of(4)
  row, column = sides()
  loss = partial(pairwise_loss, OBJECTIVES[name], axis_name=axes, tile_size=(2, 3))
  loss = dense.sharded(loss, mesh, axes, (specs(row, axes), specs(column, axes)))
  got = jax.jit(partial(value_and_gradients, loss))(row, column)
  assert dense.error(jax.device_get(got), dense_results[name]) < 1e-12


def round_the_mesh(method):
  mesh, axes = dense.mesh_of(2, 2)
  row, column = sides(12, 20)  # unequal sides, odd halves, tiles that do not divide
  row["weight"], column["weight"] = ((jnp.arange(n) % 4).astype(jnp.float64) for n in (12, 20))
  options = {"axis_name": axes, "tile_size": 2, "method": method}
  loss = lambda row, column: sum(pairwise_loss(o, row, column, **options) for o in (EVERYTHING, HINGE_BOTH))
  loss = dense.sharded(loss, mesh, axes, (specs(row, axes), specs(column, axes)))
  return jax.device_get(jax.jit(partial(value_and_gradients, loss))(row, column))


@pytest.fixture(scope="module")
def ring_results():
  with jax.enable_x64(True):
    return round_the_mesh("ring")


@pytest.mark.parametrize("method", ["bidirectional", "nested", "all_gather", "autodiff"])
def test_every_way_round_the_mesh_gives_the_same(x64, ring_results, method):
  assert dense.error(round_the_mesh(method), ring_results) < 1e-12


def test_unequal_sides_and_cotangents_that_differ_by_example(x64):
  mesh, axes = dense.mesh_of(4)
  row, column = sides(8, 20)
  slopes = (jnp.linspace(-1.0, 2.0, 8), jnp.linspace(0.5, -3.0, 20))

  def weighed(stats, slopes):
    return (stats[0] * slopes[0]).sum() + (stats[1] * slopes[1]).sum()

  def engine(row, column, slopes):
    stats = pairwise_statistics(CLIP, row, column, axis_name=axes, tile_size=3)
    return jax.lax.psum(weighed(stats["logits"], slopes), axes)

  def reference(row, column):
    logits = row["scale"] * row["x"] @ column["y"].T
    positives = jnp.arange(8)[:, None] == jnp.arange(20)[None, :]
    same = (row["id"][:, None] == column["id"][None, :]) & ~positives
    return weighed(dense.reduce(jnp.where(same, -jnp.inf, logits), "both", "lse"), slopes)

  sharded = dense.sharded(engine, mesh, axes, (specs(row, axes), specs(column, axes), (P(axes), P(axes))))
  got = jax.jit(partial(value_and_gradients, lambda r, c: sharded(r, c, slopes)))(row, column)
  assert dense.error(got, value_and_gradients(reference, row, column)) < 1e-12


def test_autodiff_has_forward_mode_and_second_derivatives(x64):
  x, y = dense.unit(6, 4, 0, jnp.float64), dense.unit(6, 4, 1, jnp.float64)
  engine = lambda x, s: clip_loss(x, y, logit_scale=s, tile_size=4, method="autodiff")
  hessian = jax.jit(jax.hessian(engine, (0, 1)))(x, jnp.asarray(3.0))
  want = jax.jit(jax.hessian(lambda x, s: dense.clip(x, y, s), (0, 1)))(x, jnp.asarray(3.0))
  assert dense.error(hessian, want) < 1e-12


def compiled(loss, devices, b, d, tile):
  mesh, axes = dense.mesh_of(devices)
  call = partial(loss, axis_name=axes, tile_size=tile)
  sharded = dense.sharded(lambda x, y, s: call(x, y, logit_scale=s), mesh, axes, (P(axes), P(axes), P()))
  features = jax.ShapeDtypeStruct((devices * b, d), jnp.float32, sharding=jax.NamedSharding(mesh, P(axes)))
  scale = jax.ShapeDtypeStruct((), jnp.float32, sharding=jax.NamedSharding(mesh, P()))
  return jax.jit(jax.value_and_grad(sharded, (0, 1, 2))).lower(features, features, scale).compile()


LOSSES = {"clip": clip_loss, "siglip": partial(siglip_loss, logit_bias=-10.0)}


@pytest.mark.parametrize("name", LOSSES)
def test_no_gather_no_wide_buffer_and_constant_memory_in_the_compiled_program(name):
  b, d, tile = 256, 64, 64
  eight = compiled(LOSSES[name], 8, b, d, tile)
  text = eight.as_text()
  assert "all-gather" not in text and "all-to-all" not in text
  shapes = re.findall(r"\b(?:f32|bf16|s32|pred)\[([\d,]+)\]", text)
  assert shapes and max(_size(shape) for shape in shapes) <= max(b * d, tile * tile)
  bodies = re.findall(r"body=%?([\w.\-]+)", text)
  inside = [_computation(text, body) for body in bodies]
  assert any("collective-permute" in body for body in inside)
  temporaries = eight.memory_analysis().temp_size_in_bytes
  assert temporaries <= 8 * b * d * 4 + 8 * tile * tile * 4
  four = compiled(LOSSES[name], 4, b, d, tile).memory_analysis().temp_size_in_bytes
  assert abs(temporaries - four) <= 0.02 * temporaries


def _size(shape):
  size = 1
  for n in shape.split(","):
    size *= int(n)
  return size


def _computation(text, name):
  match = re.search(rf"^%?{re.escape(name)} .*?^}}", text, re.MULTILINE | re.DOTALL)
  return match.group(0) if match else ""


def test_the_gradient_of_a_sigmoid_loss_comes_with_its_value_and_a_softmax_costs_one_more_product():
  # Products per tile, seen in the unoptimised program: 3 for an affine objective, 4 for softmax.
  x = jnp.ones((8, 4))
  count = lambda loss: (
    jax.jit(jax.value_and_grad(lambda x, y: loss(x, y, logit_scale=2.0, tile_size=4), (0, 1)))
    .lower(x, x)
    .as_text()
    .count("dot_general")
  )
  positives = 3  # softmax's own pairs: one product forward, two backward
  assert count(LOSSES["siglip"]) == 3
  assert count(LOSSES["clip"]) == 4 + positives


def test_an_objective_says_what_is_wrong_with_it():
  x = {"x": jnp.ones((4, 2)), "scale": 1.0}
  y = {"y": jnp.ones((4, 2))}
  logits = lambda row, col: {"logits": similarity(row["x"], col["y"])}
  rows_only = lambda stats, row, col: stats["logits"]
  with pytest.raises(ValueError, match="sides are .* kinds are"):
    Pairwise(logits, {"logits": ("row", "mean")}, rows_only)
  with pytest.raises(ValueError, match="only sums"):
    Pairwise(logits, {"logits": ("row", "lse")}, rows_only, affine=True)
  with pytest.raises(ValueError, match=r"tile returns \['logits'\] but reduce names \['loss'\]"):
    pairwise_loss(Pairwise(logits, {"loss": ("row", "lse")}, rows_only), x, y)
  flat = lambda row, col: {"logits": similarity(row["x"], col["y"]).sum(1)}
  with pytest.raises(ValueError, match=r"expected \[rows, columns\] = \(4, 4\)"):
    pairwise_loss(Pairwise(flat, {"logits": ("row", "lse")}, rows_only), x, y)
  with pytest.raises(ValueError, match="losses of shape"):
    mean = lambda stats, row, col: stats["logits"].mean()
    pairwise_loss(Pairwise(logits, {"logits": ("row", "lse")}, mean), x, y)
  with pytest.raises(ValueError, match="same number of examples"):
    pairwise_loss(CLIP, x | {"extra": jnp.ones(3)}, y)
  with pytest.raises(ValueError, match="engine's own name"):
    pairwise_loss(CLIP, x | {"index": jnp.arange(4)}, y)

"""What no fusion may do, and what some cannot: padding, empty texts, order, devices, bfloat16, interaction, leaks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import (
  FusionConfig,
  join,
  make_fusion,
  make_operator,
  power_normalize,
  signed_sqrt,
  similarity_edges,
  sketch_constants,
  split,
)
from mmjax.models import SHARDING_RULES
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh
from mmjax.parallel.rules import match_rules
from mmjax.types import Encoded
from tests.fusion.cases import (
  BLOCKS,
  INPUTS,
  KINDS,
  TOKENS,
  apply,
  config,
  every_params,
  modality,
  params,
  run_all,
  say_all,
)

ADDITIVE = ("concat", "sum", "average", "late")
EMPTY = INPUTS[0], INPUTS[1].replace(mask=jnp.zeros_like(INPUTS[1].mask), pooled=jnp.zeros_like(INPUTS[1].pooled))
WIDE = tuple(e.replace(tokens=jnp.ones((*e.mask.shape, 9))) for e in INPUTS)
each_kind = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def plain():
  return run_all(every_params(), INPUTS)


def _assert_close(a, b, tolerance=1e-5):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.fixture(scope="module")
def with_noise():
  noise = tuple(e.replace(tokens=jnp.where(e.mask[:, :, None], e.tokens, 50.0)) for e in INPUTS)
  return run_all(every_params(), noise)


@pytest.mark.parametrize("kind", TOKENS)
def test_what_stands_in_padding_changes_nothing(with_noise, kind):
  (fused, grads, inputs), (noisy, noisy_grads, noisy_inputs) = plain()[kind], with_noise[kind]
  real = np.asarray(fused.mask)
  _assert_close((fused.tokens[real], fused.pooled, grads), (noisy.tokens[real], noisy.pooled, noisy_grads), 2e-5)
  for e, (tokens, _), (noisy_tokens, _) in zip(INPUTS, inputs, noisy_inputs, strict=True):
    assert (np.asarray(noisy_tokens)[~np.asarray(e.mask)] == 0).all()
    _assert_close(tokens, noisy_tokens, 2e-5)


@pytest.fixture(scope="module")
def without_text():
  return run_all(every_params(), EMPTY)


@each_kind
def test_a_text_of_nothing_but_padding_gives_finite_numbers(without_text, kind):
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(without_text[kind]))


@pytest.mark.parametrize("kind", ["late", "co_attention", "bottleneck"])
def test_who_is_absent_has_no_say(without_text, kind):
  """`pooled` is then what the picture says; and a bottleneck holds what the picture wrote into it."""
  fused, _, inputs = without_text[kind]
  first = fused.tokens[:, 0]
  _assert_close(fused.pooled, first)
  assert all((np.asarray(g) == 0).all() for g in inputs[1])


@pytest.fixture(scope="module")
def reversed_batch():
  return run_all(every_params(), jax.tree.map(lambda leaf: leaf[::-1], INPUTS))


@each_kind
def test_an_example_does_not_see_its_neighbours(reversed_batch, kind):
  fused, again = plain()[kind][0], reversed_batch[kind][0]
  _assert_close((fused.tokens, fused.pooled), (again.tokens[::-1], again.pooled[::-1]))


@pytest.fixture(scope="module")
def crossed():
  """Rows 0 to 3 are two pictures times two texts."""
  rows = jnp.asarray([0, 0, 3, 3, 4, 5, 6, 7]), jnp.asarray([2, 5, 2, 5, 4, 5, 6, 7])
  return run_all(every_params(), tuple(jax.tree.map(lambda leaf, r=r: leaf[r], e) for e, r in zip(INPUTS, rows)))


@each_kind
def test_only_additive_fusions_cannot_interact(crossed, kind):
  """f(a, b) - f(a, b') - f(a', b) + f(a', b') is zero exactly where f is a sum over modalities."""
  pooled = crossed[kind][0].pooled
  interaction = np.abs(pooled[0] - pooled[1] - pooled[2] + pooled[3]).max()
  assert (interaction < 1e-5) == (kind in ADDITIVE), interaction


@pytest.fixture(scope="module")
def on_eight():
  sharding = batch_sharding(make_mesh(ParallelConfig()))
  inputs = jax.device_put(INPUTS, sharding)
  assert len(inputs[0].tokens.sharding.device_set) == 8
  return say_all(every_params(), inputs)


@each_kind
def test_eight_devices_say_what_one_says(on_eight, kind):
  assert len(on_eight[kind].tokens.sharding.device_set) == 8
  _assert_close(on_eight[kind], plain()[kind][0], 2e-5)


@pytest.fixture(scope="module")
def low():
  return say_all(every_params(), INPUTS, dtype="bfloat16")


@each_kind
def test_bfloat16_is_close(low, kind):
  expected, fused = plain()[kind][0], low[kind]
  assert fused.tokens.dtype == fused.pooled.dtype == jnp.bfloat16
  tolerance = 0.2 if kind in TOKENS else 0.06  # two layers of blocks with weights of .4, against one product
  np.testing.assert_allclose(fused.pooled.astype(jnp.float32), expected.pooled, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_rematerialised_where_the_configuration_says_so(kind):
  def blocks(remat):
    return str(jax.make_jaxpr(lambda p: apply(kind, INPUTS, p, remat=remat).pooled)(params(kind))).count("remat2[")

  assert blocks("none") == 0 and blocks("full") >= 2


def test_stochastic_depth_follows_the_example():
  keys = jax.random.split(jax.random.key(3), 8)

  @jax.jit
  def fused(inputs, keys):
    made = {kind: make_fusion(config(kind, drop_path=0.9)) for kind in ("co_attention", "bottleneck")}
    return {kind: module.apply({"params": params(kind)}, *inputs, rng=keys).tokens for kind, module in made.items()}

  tokens, turned = fused(INPUTS, keys), fused(*jax.tree.map(lambda leaf: leaf[::-1], (INPUTS, keys)))
  for kind in tokens:
    _assert_close(tokens[kind], turned[kind][::-1], 2e-5)
    assert np.abs(tokens[kind] - plain()[kind][0].tokens).max() > 1e-3


@pytest.mark.parametrize("kind", ["sum", "average", "product"])
def test_elementwise_operators_know_no_order(kind):
  a, b, c = (modality(i, 2).pooled for i in range(3))
  operator = make_operator(config(kind))
  _assert_close(operator.apply({}, a, b, c), operator.apply({}, c, a, b))


def test_what_is_read_by_cross_attention_may_stand_in_any_order():
  """Positions are the towers' business: attention reads a set."""
  image, text = INPUTS
  turned = jax.tree.map(lambda leaf: leaf[:, ::-1] if leaf.ndim > 1 else leaf, (image.tokens, image.mask))
  fused = jax.jit(lambda e: apply("cross_attention", (text, e), params("cross_attention")))
  _assert_close(fused(image), fused(Encoded(*turned, image.pooled)), 2e-5)


@functools.partial(jax.jit, static_argnames="depth")
def _crossing(depth):
  """The largest gradient of each modality's tokens by the other one's, after that many bottleneck layers."""

  def said(output, tokens):
    inputs = [*INPUTS]
    inputs[1 - output] = inputs[1 - output].replace(tokens=tokens)
    fused = apply("bottleneck", inputs, params("bottleneck"), depth=depth)
    return jnp.sin(split(fused, inputs)[output].tokens).sum()

  return [jnp.abs(jax.grad(functools.partial(said, i))(INPUTS[1 - i].tokens)).max() for i in (0, 1)]


def test_a_bottleneck_passes_nothing_before_its_second_layer():
  assert [float(g) for g in _crossing(depth=1)] == [0.0, 0.0]
  assert min(_crossing(depth=2)) > 1e-3


@pytest.mark.parametrize("kind", ["gcn", "gat"])
def test_a_graph_knows_no_order_and_without_cross_edges_is_two_graphs(kind):
  image, text = INPUTS
  order = jnp.asarray([2, 0, 3, 1])
  turned = Encoded(image.tokens[:, order], image.mask[:, order], image.pooled)
  fused = jax.jit(lambda a, b: apply(kind, (a, b), params(kind)))
  plain, moved = fused(image, text), fused(turned, text)
  _assert_close(plain.pooled, moved.pooled, 2e-5)
  _assert_close(plain.tokens[:, order], moved.tokens[:, :4], 2e-5)
  said = lambda tokens: apply(kind, (image.replace(tokens=tokens), text), params(kind), cross_edges=0).tokens[:, 4:]
  assert (np.asarray(jax.jit(jax.grad(lambda x: jnp.sin(said(x)).sum()))(image.tokens)) == 0).all()


@each_kind
def test_every_parameter_has_a_placement(kind):
  match_rules(SHARDING_RULES, {"fusion": params(kind)}, purpose="placement")


def test_edges_by_hand():
  """Three tokens of an image, the last of them padding, and two of a text."""
  image = Encoded(jnp.asarray([[[1.0, 0], [0, 1], [1, 1]]]), jnp.asarray([[True, True, False]]), jnp.zeros((1, 2)))
  text = Encoded(jnp.asarray([[[2.0, 0.1], [1, 0.5]]]), jnp.ones((1, 2), bool), jnp.zeros((1, 2)))
  edges = lambda own, cross: similarity_edges((image, text), own=own, cross=cross)[0].astype(int).tolist()
  alone = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
  assert edges(0, 0) == alone
  assert edges(5, 0) == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
  # Both words choose the first token; it chooses the first word, and the second token the second word.
  assert edges(0, 1) == [[1, 0, 0, 1, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 0, 1]]


def test_late_decisions_know_nothing_of_each_other():
  image, text = INPUTS

  def decision(which, pooled):
    return apply("late", (image, text.replace(pooled=pooled))).tokens[:, which].sum()

  assert (np.asarray(jax.grad(functools.partial(decision, 0))(text.pooled)) == 0).all()
  assert np.abs(jax.grad(functools.partial(decision, 1))(text.pooled)).min() > 0


def test_signed_sqrt_has_a_finite_gradient_at_zero():
  x = jnp.asarray([-4.0, 0.0, 9.0])
  np.testing.assert_allclose(signed_sqrt(x), [-2.0, 0.0, 3.0])
  np.testing.assert_allclose(jax.grad(lambda x: signed_sqrt(x).sum())(x), [1 / 4, 0.0, 1 / 6])
  naive = jax.grad(lambda x: (jnp.sign(x) * jnp.sqrt(jnp.abs(x))).sum())(x)
  assert np.isnan(naive[1])  # what the double `where` is for


def test_power_normalize_is_finite_for_a_row_of_zeros():
  x = jnp.zeros((1, 4))
  assert (np.asarray(power_normalize(x)) == 0).all()
  assert np.isfinite(jax.grad(lambda x: power_normalize(x).sum())(x)).all()


def test_sketches_are_the_same_everywhere_and_differ_between_modalities():
  buckets, signs = sketch_constants(6, 100, seed=0, modality=0)
  np.testing.assert_array_equal(buckets, [21, 33, 8, 45, 24, 26])
  np.testing.assert_array_equal(signs, [1, -1, 1, 1, -1, -1])
  assert (sketch_constants(6, 100, seed=0, modality=1)[0] != buckets).any()
  assert (sketch_constants(6, 100, seed=1, modality=0)[0] != buckets).any()
  assert not params("mcb")


def test_a_fusion_without_heads_may_have_any_width():
  assert FusionConfig(kind="late", width=3, num_heads=12).width == 3


def test_split_takes_apart_what_was_joined():
  tokens, mask = join(INPUTS, "float32")
  parts = split(Encoded(tokens, mask, INPUTS[0].pooled), INPUTS)
  _assert_close([(e.tokens, e.mask) for e in parts], [(e.tokens, e.mask) for e in INPUTS])


@pytest.mark.parametrize(
  ("call", "said"),
  [
    (lambda: FusionConfig(rank=0), "rank=0"),
    (lambda: FusionConfig(kind="early", width=10, num_heads=3), "width=10 must be divisible by num_heads=3"),
    (lambda: FusionConfig(kind="bottleneck", scan=True), "scan=True is not for kind='bottleneck'"),
    (lambda: FusionConfig(kind="gcn", remat="full"), "remat=full is not an option of a graph network"),
    (lambda: FusionConfig(kind="gat", cross_edges=-1), "cross_edges=-1 must be at least 0"),
    (lambda: make_operator(config("late")), "kind='late' reads more than one vector"),
    (lambda: apply("bilinear", (*INPUTS, modality(2, 2)), {}), "takes two modalities, not 3"),
    (lambda: make_operator(config("sum")).apply({}, jnp.ones((1, 2)), jnp.ones((1, 3))), r"one width, not \[2, 3\]"),
    (lambda: split(INPUTS[0], INPUTS), r"4 fused tokens cannot be split into modalities of \[4, 3\]"),
    (lambda: apply("early", WIDE, {}), r"have the fusion's width 8, not \[9, 9\]"),
    (lambda: apply("co_attention", WIDE, {}), r"have the fusion's width 8, not \[9, 9\]"),
    (lambda: apply("bottleneck", WIDE, {}), r"have the fusion's width 8, not \[9, 9\]"),
    (lambda: apply("cross_attention", WIDE, {}), r"have the fusion's width 8, not \[9\]"),
    (lambda: join((INPUTS[0], WIDE[0]), "float32"), r"one width, not \[8, 9\]"),
  ],
)
def test_what_does_not_fit_is_named(call, said):
  with pytest.raises(ValueError, match=said):
    call()

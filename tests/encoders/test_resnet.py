"""CLIP's residual network, and BERT as a configuration; both against the reference in tests/interop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ResNet, ResNetConfig, TextTransformer, bert_config

SMALL = ResNetConfig(image_size=64, layers=(2, 1, 1, 1), width=4, num_heads=4, output_dim=6, norm="frozen")
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((3, 64, 64, 3)), jnp.float32)


@pytest.fixture(scope="module")
def params():
  return random_like(jax.eval_shape(ResNet(SMALL).init, jax.random.key(0), IMAGES)["params"])


def random_like(shapes):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: jnp.asarray(np.abs(0.3 * rng.standard_normal(s.shape)), jnp.float32), shapes)


def test_shapes_and_independence_of_the_rest_of_the_batch(params):
  encode = jax.jit(lambda images: ResNet(SMALL).apply({"params": params}, images))
  out = encode(IMAGES)
  assert (out.tokens.shape, out.pooled.shape, bool(out.mask.all())) == ((3, 4, 128), (3, 6), True)
  others = encode(IMAGES.at[0].set(9.0).at[2].set(-9.0))
  np.testing.assert_allclose(others.pooled[1], out.pooled[1], rtol=1e-5)
  assert np.abs(others.pooled[0] - out.pooled[0]).max() > 1e-3


@pytest.fixture
def quick_compilations():
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("quick_compilations")
def test_a_deep_one_from_scratch_keeps_its_scale_and_tells_images_apart():
  config = ResNetConfig(image_size=32, layers=(3, 4, 6, 3), width=16, num_heads=4, output_dim=6)
  y, x = np.mgrid[:32, :32] / 31  # images of noise would look alike to any network
  images = (
    2
    * np.stack(
      [np.stack(channels, -1) for channels in ((y, x, y * x), (np.sin(6 * y), 1 - x, x), (x > 0.5, y > 0.5, y))]
    )
    - 1
  )
  images = images.astype(np.float32)
  out = jax.jit(lambda: ResNet(config).init_with_output(jax.random.key(0), images)[0])()
  # With norms frozen at mean 0 and variance 1, the size grew to 200 and the cosines to 0.999.
  assert 0.3 < np.sqrt(np.square(out.tokens).mean()) < 5.0
  unit = out.pooled / np.linalg.norm(out.pooled, axis=1, keepdims=True)
  assert np.max(unit @ unit.T - 2 * np.eye(len(unit))) < 0.96


def test_flops_are_what_the_compiler_counts():
  config = ResNetConfig(image_size=128, layers=(2, 1, 1, 1), width=8, num_heads=4, output_dim=6)
  image = jnp.zeros((1, 128, 128, 3))
  params = jax.eval_shape(ResNet(config).init, jax.random.key(0), image)["params"]
  forward = jax.jit(lambda p, x: ResNet(config).apply({"params": p}, x).pooled)
  compiled = forward.lower(params, image).compile().cost_analysis()["flops"]
  # The compiler leaves out products with a convolution's padding, and counts elementwise operations.
  assert config.flops() == pytest.approx(compiled, rel=0.1)


def test_fields_that_do_not_fit_are_named():
  for fields, message in (
    ({"image_size": 65}, "image_size=65 must be divisible by 32"),
    ({"layers": (1, 2)}, "must be four numbers"),
    ({"width": 3}, "width=3 must be even"),
    ({"num_heads": 7}, "divisible by num_heads=7"),
  ):
    with pytest.raises(ValueError, match=message):
      ResNetConfig(**fields)
  with pytest.raises(ValueError, match="images are 32x32, but image_size=64"):
    ResNet(SMALL).init(jax.random.key(0), IMAGES[:, :32, :32])


def test_segments_change_a_bert_and_padding_does_not():
  config = bert_config(width=8, depth=2, num_heads=2, vocab_size=20, max_length=8)
  ids = jnp.asarray([[3, 4, 5, 6, 0, 0], [3, 9, 6, 0, 0, 0]])
  params = jax.jit(TextTransformer(config).init)(jax.random.key(0), ids)["params"]

  @jax.jit
  def embed(ids, types=None):
    return TextTransformer(config).apply({"params": params}, ids, types, method="encode_text")

  plain = embed(ids)
  np.testing.assert_allclose(embed(ids, jnp.zeros_like(ids)), plain, rtol=1e-6)
  assert np.abs(embed(ids, jnp.ones_like(ids)) - plain).max() > 1e-3
  np.testing.assert_allclose(embed(ids[:, :4])[1], plain[1], rtol=1e-5, atol=1e-6)
  assert "norm" not in params["transformer"] and "input_norm" in params["transformer"]

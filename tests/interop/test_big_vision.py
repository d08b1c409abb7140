"""big_vision's files and ours embed alike, both ways. Its models are written anew here: it is no package."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax import interop
from mmjax.interop.shapes import flatten
from tests.interop.references import IMAGES

IDS = np.random.default_rng(0).integers(0, 20, (3, 6)).astype(np.int32)


class BigVisionBlock(nn.Module):
  """big_vision's encoder block, of flax's own layers as there (models/vit.py)."""

  heads: int
  hidden: int

  @nn.compact
  def __call__(self, x):
    y = nn.LayerNorm(name="LayerNorm_0")(x)
    x = x + nn.MultiHeadDotProductAttention(self.heads, name="MultiHeadDotProductAttention_0")(y, y)
    return x + MlpBlock(self.hidden, name="MlpBlock_0")(nn.LayerNorm(name="LayerNorm_1")(x))


class MlpBlock(nn.Module):
  hidden: int

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    return nn.Dense(width, name="Dense_1")(nn.gelu(nn.Dense(self.hidden, name="Dense_0")(x)))


class BigVisionEncoder(nn.Module):
  heads: int
  hidden: int
  depth: int

  @nn.compact
  def __call__(self, x):
    for i in range(self.depth):
      x = BigVisionBlock(self.heads, self.hidden, name=f"encoderblock_{i}")(x)
    return nn.LayerNorm(name="encoder_norm")(x)


class MapHead(nn.Module):
  heads: int
  hidden: int

  @nn.compact
  def __call__(self, x):
    probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, x.shape[-1]))
    probe = jnp.tile(probe, [x.shape[0], 1, 1])
    x = nn.MultiHeadDotProductAttention(self.heads, name="MultiHeadDotProductAttention_0")(probe, x)
    return (x + MlpBlock(self.hidden, name="MlpBlock_0")(nn.LayerNorm(name="LayerNorm_0")(x)))[:, 0]


class BigVisionViT(nn.Module):
  pool: str
  width: int = 16
  heads: int = 2
  patch: int = 4

  @nn.compact
  def __call__(self, image):
    size = (self.patch, self.patch)
    x = nn.Conv(self.width, size, strides=size, padding="VALID", name="embedding")(image)
    x = x.reshape(x.shape[0], -1, self.width)
    x = x + self.param("pos_embedding", nn.initializers.normal(), (1, x.shape[1], self.width))
    if self.pool == "tok":
      cls = self.param("cls", nn.initializers.zeros, (1, 1, self.width))
      x = jnp.concatenate([jnp.tile(cls, [x.shape[0], 1, 1]), x], axis=1)
    x = BigVisionEncoder(self.heads, 24, 2, name="Transformer")(x)
    if self.pool == "map":
      return MapHead(self.heads, 24, name="MAPHead_0")(x)
    return x[:, 0] if self.pool == "tok" else x.mean(axis=1)


class BigVisionText(nn.Module):
  """models/proj/image_text/text_transformer.py"""

  heads: int = 2
  hidden: int = 24

  @nn.compact
  def __call__(self, ids):
    x = nn.Embed(20, 16, name="Embed_0")(ids)
    x = x + self.param("pos_embedding", nn.initializers.normal(), (1, ids.shape[1], 16))
    return nn.Dense(16, name="head")(BigVisionEncoder(self.heads, self.hidden, 2, name="Encoder_0")(x)[:, -1])


class BigVisionSigLIP(nn.Module):
  heads: int = 2
  patch: int = 4

  @nn.compact
  def __call__(self, image, text):
    self.param("t", nn.initializers.ones, (1,))
    self.param("b", nn.initializers.ones, (1,))
    image = BigVisionViT("map", heads=self.heads, patch=self.patch, name="img")(image)
    return image, BigVisionText(self.heads, 8 * self.patch, name="txt")(text)


def random_like(shapes, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda s: 0.3 * rng.standard_normal(s.shape).astype(np.float32), shapes)


def save_npz(path, params, *, scan=False, prefix="params/"):
  flat = {prefix + name: leaf for name, leaf in flatten(params).items()}
  if scan:  # as big_vision writes scanned towers
    stacks = sorted({n.replace("encoderblock_0/", "encoderblock/") for n in flat if "encoderblock_0/" in n})
    stacked = {n: np.stack([flat[n.replace("encoderblock/", f"encoderblock_{i}/")] for i in range(2)]) for n in stacks}
    flat = {name: leaf for name, leaf in flat.items() if "encoderblock_" not in name} | stacked
  np.savez(path, **flat)


@pytest.mark.parametrize("scan", [False, True])
def test_big_vision_siglip(scan, tmp_path):
  images = IMAGES[:, :16, :16]
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    siglip = BigVisionSigLIP(heads=4, patch=8) if scan else BigVisionSigLIP()
    shapes = jax.eval_shape(siglip.init, jax.random.key(0), images, IDS)["params"]
    theirs = random_like(shapes)
    expected = jax.jit(siglip.apply)({"params": theirs}, images, IDS)
  save_npz(tmp_path / "siglip.npz", theirs, scan=scan, prefix="" if scan else "params/")
  model, params = interop.load(tmp_path / "siglip.npz")
  ours = jax.jit(lambda p, i, t: (_encode(model, p, "image", i), _encode(model, p, "text", t)))(params, images, IDS)
  for mine, yours in zip(ours, expected, strict=True):
    np.testing.assert_allclose(mine, yours, rtol=0, atol=2e-5)
  interop.save(model, params, tmp_path / "ours.npz", format="big_vision")
  written = np.load(tmp_path / "ours.npz")
  assert set(written) == {"params/" + name for name in flatten(theirs)}
  for name, leaf in flatten(theirs).items():
    np.testing.assert_array_equal(written["params/" + name], leaf)


def _encode(model, params, modality, inputs):
  return model.apply({"params": params}, inputs, method=f"encode_{modality}")


@pytest.mark.parametrize("pool", ["tok", "gap", "map"])
def test_big_vision_vit(pool, tmp_path):
  images, theirs = IMAGES[:, :16, :16], BigVisionViT(pool, heads=4)
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
    weights = random_like(jax.eval_shape(theirs.init, jax.random.key(0), images)["params"])
    expected = jax.jit(theirs.apply)({"params": weights}, images)
  save_npz(tmp_path / "vit.npz", weights | {"head": {"kernel": np.zeros((16, 5), np.float32)}})
  model, params = interop.load(tmp_path / "vit.npz")
  got = jax.jit(lambda p, x: _encode(model, p, "image", x))(params, images)
  np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)
  interop.save(model, params, tmp_path, format="big_vision")
  assert set(np.load(tmp_path / "model.npz")) == {"params/" + name for name in flatten(weights)}

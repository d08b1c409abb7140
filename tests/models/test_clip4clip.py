"""CLIP4Clip: its four similarities, on the weights of an image-text model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data.columns.video import PADDED
from mmjax.encoders import TextConfig, VideoConfig, ViTConfig
from mmjax.interop import restore, save
from mmjax.interop.agreement import derived_model
from mmjax.interop.source import open_source
from mmjax.models import Clip4ClipConfig, TwoTowerConfig
from mmjax.objectives import Forward, PairSoftmax

TINY = dict(width=8, depth=1, num_heads=2)
IMAGE, TEXT = ViTConfig(image_size=8, patch_size=4, pool="mean", **TINY), TextConfig(max_length=4, **TINY)
CLIP = TwoTowerConfig(image=IMAGE, text=TEXT, embed_dim=12)
TURNED = np.array([2, 1, 0, 3])


def config(temporal: str, image: ViTConfig = IMAGE, **fields) -> Clip4ClipConfig:
  small = dict(embed_dim=12, frames=4, temporal_depth=1, temporal_heads=2)
  return Clip4ClipConfig(image=image, text=TEXT, temporal=temporal, **small | fields)


@functools.cache
def made(config, seed: int = 0):
  """(model, parameters), all of them random."""
  model, rng = config.build(), np.random.default_rng(seed)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), config.example(1)))["params"]
  return model, jax.tree.map(lambda leaf: (0.4 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)


def clips(rows: int = 3, real: int = 4) -> np.ndarray:
  """Clips with `real` frames of four."""
  frames = np.random.default_rng(1).normal(size=(rows, 4, 8, 8, 3)).astype(np.float32)
  frames[:, real:] = PADDED
  return frames


def texts(rows: int = 3) -> np.ndarray:
  return np.random.default_rng(2).integers(1, 50, (rows, 4)).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def embedded(model, params, frames):
  ask = lambda module: module.project(module.encode({"video": frames}))["video"]
  return model.apply({"params": params}, method=ask)


@jax.jit
def image_embeddings(params, frames):
  """Embeddings of the frames of clips by the image-text model with the same parameters."""
  images = frames.reshape(-1, 8, 8, 3)
  ask = lambda module: module.embedding("image", module.image(images))
  return CLIP.build().apply({"params": params}, method=ask).reshape(*frames.shape[:2], 12)


def unit(x: np.ndarray) -> np.ndarray:
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("temporal", ["mean", "lstm", "transformer"])
def test_padding_moves_nothing_and_order_counts_but_for_the_mean(temporal):
  (model, params), frames = made(config(temporal)), clips(real=3)
  found = embedded(model, params, frames)
  shown = {k: params[k] for k in params if k != "temporal"}
  if temporal == "mean":
    assert jax.tree.structure(params) == jax.tree.structure(made(CLIP)[1])
    each = unit(np.asarray(image_embeddings(shown, frames)))[:, :3]
    np.testing.assert_allclose(found, unit(each.mean(axis=1)), atol=1e-5)
  np.testing.assert_allclose(found, embedded(model, params, frames[:, :3]), atol=1e-6)
  turned = embedded(model, params, frames[:, TURNED])
  assert (np.abs(turned - found).max() < 1e-5) == (temporal == "mean")


def test_the_lstm_equals_its_equations():
  (model, params), frames = made(config("lstm")), clips(real=3)
  shown = {k: params[k] for k in params if k != "temporal"}
  vectors = np.asarray(image_embeddings(shown, frames), np.float64)[:, :3]
  cell = jax.tree.map(np.float64, params["temporal"]["lstm"]["cell"])
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  state, memory, outputs = np.zeros((3, 12)), np.zeros((3, 12)), []
  for step in range(3):
    gate = lambda n, x, h: x @ cell[f"i{n}"]["kernel"] + h @ cell[f"h{n}"]["kernel"] + cell[f"h{n}"]["bias"]
    i, f, g, o = (gate(name, vectors[:, step], state) for name in "ifgo")
    memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    state = sigmoid(o) * np.tanh(memory)
    outputs.append(vectors[:, step] + state)
  expected = unit(unit(np.stack(outputs, axis=1)).mean(axis=1))
  np.testing.assert_allclose(embedded(model, params, frames), expected, atol=1e-5)


@jax.jit
def pair_scores(params, frames, ids):
  """Scores of all pairs, as retrieval computes them."""

  def ask(module):
    encoded = module.encode({"video": frames, "text": ids})
    return module.pair_scores(encoded, jnp.broadcast_to(encoded["text"].pooled[None], (len(frames), len(ids), 8)))

  return made(config("tight"))[0].apply({"params": params}, method=ask)


def test_scores_of_pairs_are_those_of_each_pair_alone_and_read_the_order():
  (_, params), frames, ids = made(config("tight")), clips(2, real=3), texts(2)
  found = pair_scores(params, frames, ids)
  one = lambda i, j: pair_scores(params, frames[i, None], ids[j, None])[0, 0]
  np.testing.assert_allclose(found, [[one(i, j) for j in range(2)] for i in range(2)], atol=1e-5)
  np.testing.assert_allclose(found, pair_scores(params, frames[:, :3], ids), atol=1e-5)
  assert np.abs(pair_scores(params, frames[:, TURNED], ids) - found).max() > 1e-3


def test_the_term_equals_softmax_over_all_pairs_of_a_group():
  """Value and gradient, with two groups of two rows. The rows of the second have one concept: none is a negative."""
  model, params = made(config("tight"))
  rows = {"video": clips(4), "text": texts(4), "concept": np.array([1, 2, 3, 3], np.int32)}
  keys = jax.random.split(jax.random.key(0), 4)

  def term(module):
    forward = Forward(module, rows, keys, jnp.int32(0), ("text", "video"), training=False)
    return PairSoftmax(group=2).over_rows(forward, None)["loss"][0]

  def reference(module):
    encoded = module.encode({name: rows[name][:2] for name in ("video", "text")})
    text, video = module.embedding("text", encoded["text"]), encoded["video"]
    score = lambda i, j: module.tight(video.tokens[i], video.mask[i], text[j : j + 1])[0]
    scores = jnp.stack([jnp.stack([score(i, j) for j in range(2)]) for i in range(2)])
    own = jnp.diagonal(scores)
    return (jax.nn.logsumexp(scores, axis=0) + jax.nn.logsumexp(scores, axis=1)) / 2 - own

  def value_and_gradient(ask):
    def loss(params):
      losses = model.apply({"params": params}, method=ask)
      return losses[:2].sum(), losses

    (_, losses), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return losses, gradient

  (losses, ours), (expected, theirs) = value_and_gradient(term), value_and_gradient(reference)
  np.testing.assert_allclose(losses[:2], expected, atol=1e-5)
  np.testing.assert_allclose(losses[2:], 0.0, atol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), ours, theirs)


def test_weights_of_an_image_text_model_initialise_all_but_the_order(tmp_path):
  trained, weights = made(CLIP, seed=5)
  save(trained, weights, tmp_path / "clip", format="mmjax")
  start = config("transformer", dataclasses.replace(IMAGE, width=16), init_logit_scale=5.0)
  derived = derived_model(start, open_source(tmp_path / "clip"), "")
  assert derived == config("transformer")
  restored, report = restore(tmp_path / "clip", made(derived)[1])
  assert not report.left and {path.split("/")[0] for path in report.reinitialised} == {"temporal"}
  same = {name: leaf for name, leaf in restored.items() if name != "temporal"}
  jax.tree.map(np.testing.assert_array_equal, same, weights)


def test_an_example_does_not_depend_on_its_place():
  model, params = made(config("lstm", dataclasses.replace(IMAGE, dropout=0.5)))
  frames, keys = clips(), jax.random.split(jax.random.key(0), 3)
  ask = lambda module, rows, keys: module.encode({"video": rows}, rng=keys)["video"].pooled
  apply = jax.jit(lambda *given: model.apply({"params": params}, *given, method=ask))
  order = np.array([2, 0, 1])
  found = np.asarray(apply(frames, keys))
  np.testing.assert_allclose(apply(frames[order], keys[order]), found[order], atol=1e-6)
  assert np.abs(apply(frames, keys[order]) - found).max() > 1e-3


def test_settings_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="num_heads=5"):
    config("tight", temporal_heads=5)
  with pytest.raises(ValueError, match="frames=0"):
    config("mean", frames=0)
  with pytest.raises(ValueError, match="group=1"):
    PairSoftmax(group=1)
  with pytest.raises(ValueError, match="clips have 5 frames, but frames=4"):
    embedded(*made(config("mean")), np.zeros((1, 5, 8, 8, 3), np.float32))


def test_a_tower_of_frames_has_the_weights_of_an_image_tower():
  frames, (image, weights) = clips(real=3), made(IMAGE)
  tower = VideoConfig(frame=IMAGE, frames=4, output="patches").build()
  places = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
  params = {"params": weights | {"frame_position_embedding": places}}
  found = jax.jit(tower.apply)(params, frames)
  each = jax.jit(image.apply)({"params": weights}, frames[:, :3].reshape(-1, 8, 8, 3))
  np.testing.assert_allclose(found.pooled, each.pooled.reshape(3, 3, 8).mean(axis=1), atol=1e-5)
  tokens = each.tokens.reshape(3, 3, 4, 8) + places[None, :3, None]
  np.testing.assert_allclose(found.tokens[:, :12], tokens.reshape(3, 12, 8), atol=1e-5)
  assert found.mask.tolist() == [[True] * 12 + [False] * 4] * 3
  with pytest.raises(ValueError, match="clips have 3 frames, but frames=4"):
    tower.apply(params, frames[:, :3])

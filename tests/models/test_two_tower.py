"""The two-tower model: names, norms, scale, and parameters that every rule covers."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import TextConfig, ViTConfig
from mmjax.models import SHARDING_RULES, SharedSpaceConfig, TwoTower, TwoTowerConfig
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh, parameter_shardings

CONFIG = TwoTowerConfig(
  image=ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2, pool="map", stem="conv", qk_norm=True),
  text=TextConfig(vocab_size=20, max_length=6, width=8, depth=2, num_heads=2, eos_id=19, scan=True),
  embed_dim=4,
  init_logit_bias=-10.0,
)
BATCH = {
  "image": jnp.asarray(np.random.default_rng(0).standard_normal((3, 8, 8, 3)), jnp.float32),
  "text": jnp.asarray([[3, 4, 19, 0, 0, 0], [5, 6, 7, 8, 9, 19], [1, 19, 0, 0, 0, 0]], jnp.int32),
}


@functools.cache
def _params():
  return jax.jit(TwoTower(CONFIG).init)(jax.random.key(0), BATCH)["params"]


def _apply(method, *args, config=CONFIG, params=None):
  return TwoTower(config).apply({"params": params or _params()}, *args, method=method)


def test_projections_are_unit_norm_float32_and_agree_with_the_single_methods():
  both = _apply(lambda m, batch: m.project(m.encode(batch)), BATCH)
  for name in ("image", "text"):
    single = np.asarray(_apply(f"encode_{name}", BATCH[name]))
    assert both[name].dtype == jnp.float32 and both[name].shape == (3, 4)
    np.testing.assert_allclose(np.linalg.norm(both[name], axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(both[name], single / np.linalg.norm(single, axis=1, keepdims=True), rtol=1e-4, atol=1e-5)


def test_scale_and_bias_begin_as_configured_and_the_scale_is_clipped():
  assert float(_apply("logit_bias")) == -10.0
  np.testing.assert_allclose(_apply("logit_scale"), 1 / 0.07, rtol=1e-6)
  high = {**_params(), "logit_scale": jnp.asarray(math.log(1000.0))}
  np.testing.assert_allclose(_apply("logit_scale", params=high), 100.0, rtol=1e-6)
  slope = jax.grad(lambda t: _apply("logit_scale", params={**_params(), "logit_scale": t}))(high["logit_scale"])
  np.testing.assert_allclose(slope, 100.0, rtol=1e-6)  # as if the parameter were clamped: it can come down again
  without = {k: v for k, v in _params().items() if k != "logit_bias"}
  assert float(_apply("logit_bias", config=dataclasses.replace(CONFIG, init_logit_bias=None), params=without)) == 0.0
  with pytest.raises(ValueError, match="init_logit_scale=200"):
    TwoTowerConfig(init_logit_scale=200.0)


def test_one_tower_with_its_projection_has_no_scale():
  """Published weights of one tower have none. A model of two towers needs one."""
  config = SharedSpaceConfig(towers={"image": CONFIG.image}, embed_dim=4, init_logit_scale=None)
  model, batch = config.build(), {"image": BATCH["image"]}
  params = jax.jit(model.init)(jax.random.key(0), batch)["params"]
  assert set(params) == {"image", "image_projection"} and config.clamped(params) is params
  assert float(model.apply({"params": params}, method="logit_scale")) == 1.0
  embedding = model.apply({"params": params}, batch["image"], method="encode_image")
  unit = model.apply({"params": params}, batch)["image"]
  np.testing.assert_allclose(embedding / jnp.linalg.norm(embedding, axis=1, keepdims=True), unit, atol=1e-6)
  with pytest.raises(ValueError, match="init_logit_scale must be a number"):
    dataclasses.replace(CONFIG, init_logit_scale=None)


def test_the_bias_is_clipped_either_way_and_can_come_back():
  for bias in (-120.0, 120.0):
    params = {**_params(), "logit_bias": jnp.float32(bias)}
    assert float(_apply("logit_bias", params=params)) == math.copysign(100.0, bias)
    assert (
      float(jax.grad(lambda b: _apply("logit_bias", params={**_params(), "logit_bias": b}))(jnp.float32(bias))) == 1
    )
  assert float(_apply("logit_bias")) == -10.0
  with pytest.raises(ValueError, match="init_logit_bias=-101"):
    TwoTowerConfig(init_logit_bias=-101.0)


def test_parameters_have_the_promised_names():
  assert set(_params()) == {"image", "text", "image_projection", "text_projection", "logit_scale", "logit_bias"}
  assert set(_params()["image_projection"]) == {"kernel"}


def test_every_parameter_has_a_sharding_rule_that_fits_its_shape():
  for path, leaf in jax.tree_util.tree_leaves_with_path(_params()):
    name = "/".join(str(key.key) for key in path)
    specs = [spec for pattern, spec in SHARDING_RULES if re.search(pattern, name)]
    assert specs, f"no rule covers {name}"
    assert len(specs[0]) <= leaf.ndim, f"{name}: {specs[0]} has more axes than {leaf.shape}"
  heads = dict(SHARDING_RULES)[r"attention/(query|key|value)/kernel$"]
  assert heads == ("fsdp", "model")


def test_tensor_parallel_towers_compute_the_same():
  """Heads and MLP widths split over two devices, kernels over two more, the batch over four: loss and gradients."""
  batch = {name: jnp.concatenate([x, x[:1]]) for name, x in BATCH.items()}

  def loss(params, batch):
    out = TwoTower(CONFIG).apply({"params": params}, batch)
    return (out["image"] * jnp.roll(out["text"], 1, axis=0)).sum()

  mesh = make_mesh(ParallelConfig(fsdp=2, model=2))
  shardings = parameter_shardings(SHARDING_RULES, _params(), mesh)
  assert "model" in str(shardings["text"]["transformer"]["blocks"]["mlp"]["up"]["kernel"].spec)
  split = jax.jit(jax.value_and_grad(loss), in_shardings=(shardings, batch_sharding(mesh)))
  value, grads = jax.jit(jax.value_and_grad(loss))(_params(), batch)
  split_value, split_grads = split(_params(), batch)
  np.testing.assert_allclose(split_value, value, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), split_grads, grads)


def test_the_projection_of_two_layers_and_its_sharding_rules():
  """Two layers without biases, (8 + 4) // 2 wide inside; and a text tower with the parameters that others lack."""
  text = TextConfig(vocab_size=20, max_length=6, width=8, depth=1, num_heads=2, pool="mean", causal=False)
  text = dataclasses.replace(text, count_positions=True, relative_buckets=4, rms_norm=True, linear_bias=False)
  config = dataclasses.replace(CONFIG, text=text, text_projection="mlp")
  params = jax.jit(TwoTower(config).init)(jax.random.key(0), BATCH)["params"]
  up, down = (params["text_projection"][name]["kernel"] for name in ("up", "down"))
  assert up.shape == (8, 6) and set(params["text_projection"]["up"]) == {"kernel"}
  encoded = _apply(lambda m, b: m.encode(b), {"text": BATCH["text"]}, config=config, params=params)["text"]
  hidden = jax.nn.gelu(encoded.pooled @ up, approximate=False) @ down
  ours = _apply("encode_text", BATCH["text"], config=config, params=params)
  np.testing.assert_allclose(ours, hidden, rtol=1e-5, atol=1e-6)
  for path, _ in jax.tree_util.tree_leaves_with_path(params):
    name = "/".join(str(key.key) for key in path)
    assert any(re.search(pattern, name) for pattern, _ in SHARDING_RULES), f"no rule covers {name}"

"""Attention that is shown: the same network, weights that are its own, gradients worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.evaluate.attention_maps import attention_maps
from mmjax.evaluate.explained import match_score
from mmjax.models.albef import Albef, AlbefConfig
from mmjax.models.vilt import PatchesConfig, Vilt, ViltConfig
from mmjax.nn.attention import MultiHeadAttention

pytestmark = pytest.mark.usefixtures("every_platform")
BATCH, WORDS, PATCHES = 3, 5, 4


def small():
  text = bert_config(width=16, depth=1, num_heads=2, vocab_size=11, max_length=WORDS, token_types=0, tanh_pool=False)
  image = ViTConfig(image_size=8, patch_size=4, width=16, depth=1, num_heads=2, pool="cls")
  return Albef(AlbefConfig(image=image, text=text, fusion_depth=2, embed_dim=8))


@pytest.fixture(scope="module")
def albef():
  model = small()
  rng = np.random.default_rng(0)
  batch = {
    "image": jnp.asarray(rng.normal(size=(BATCH, 8, 8, 3)), jnp.float32),
    "text": jnp.asarray(rng.integers(1, 11, (BATCH, WORDS)), jnp.int32).at[0, 3:].set(0),
  }
  return model, jax.jit(model.init)(jax.random.key(0), batch)["params"], batch


def test_shown_attention_is_the_same_network(albef):
  model, params, batch = albef
  plain = jax.jit(lambda p: model.apply({"params": p}, batch))(params)
  shown, state = jax.jit(lambda p: model.apply({"params": p}, batch, mutable=["intermediates"]))(params)
  for name in plain:
    np.testing.assert_allclose(plain[name], shown[name], atol=2e-6, err_msg=name)
  weights = state["intermediates"]["fusion"]["decoder"]["block_1"]["cross_attention"][f"weights_{WORDS}"][-1]
  assert weights.shape == (BATCH, 2, WORDS, 1 + PATCHES) and weights.dtype == jnp.float32
  np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
  own = state["intermediates"]["fusion"]["decoder"]["block_0"]["attention"][f"weights_{WORDS}"][-1]
  assert (own[0, :, :, 3:] == 0).all()  # nobody reads padding


def test_nothing_is_kept_unless_asked_for(albef):
  model, params, batch = albef
  text = str(jax.make_jaxpr(lambda p: model.apply({"params": p}, batch))(params))
  assert "custom_vjp" in text and set(jax.eval_shape(model.init, jax.random.key(0), batch)) == {"params"}


def test_maps_of_words_over_patches(albef):
  model, params, batch = albef
  maps = attention_maps(model, params, batch, match_score, patches=PATCHES)
  assert maps.attention.shape == maps.relevance.shape == (2, BATCH, WORDS, PATCHES)
  assert (maps.attention > 0).all() and (maps.attention.sum(-1) < 1).all()  # the rest is on the class token
  assert (maps.relevance >= 0).all() and maps.relevance.max() > 0
  # In the last block only the first token, from which the match logit is made, has a gradient.
  assert maps.relevance[1, :, 0].max() > 0 and (maps.relevance[1, :, 1:] == 0).all()
  assert maps.relevance[0, :, 1:3].max() > 0


def test_one_row_of_tokens_in_a_loop_over_layers():
  """ViLT, its blocks scanned: words stand before patches, and each layer is told apart."""
  text = TextConfig(
    vocab_size=11, max_length=WORDS, width=8, depth=2, num_heads=2, mlp_dim=8, causal=False, pool="first", scan=True
  )
  model = Vilt(ViltConfig(PatchesConfig(image_size=8, patch_size=4), text))
  batch = {"image": jnp.ones((1, 8, 8, 3)), "text": jnp.asarray([[1, 4, 5, 0, 0]], jnp.int32)}
  params = jax.jit(model.init)(jax.random.key(0), batch)["params"]
  maps = attention_maps(model, params, batch, match_score, patches=PATCHES)
  _, state = jax.jit(lambda p: model.apply({"params": p}, batch, mutable=["intermediates"]))(params)
  (weights,) = state["intermediates"]["stream"]["joint"]["transformer"]["blocks"]["attention"]["weights_9"]
  assert weights.shape == (2, 1, 2, 9, 9)
  np.testing.assert_allclose(maps.attention, weights.mean(2)[:, :, :WORDS, WORDS:], atol=1e-6)
  assert maps.relevance[0].max() > 0 and (maps.relevance[1, 0, 1:] == 0).all()


def test_gradient_by_hand():
  """score = sum of the outputs, so d score / d weight[b, h, q, k] = value[b, k, h] . out_kernel[h] summed."""
  attend = MultiHeadAttention(
    num_heads=2, qk_norm=False, out_init=jax.nn.initializers.normal(1.0), dtype="float32", implementation="auto",
    epsilon=1e-6, name=None,
  )  # fmt: skip
  x, context = (jax.random.normal(jax.random.key(n), (2, length, 8)) for n, length in ((0, 3), (1, 4)))
  params = attend.init(jax.random.key(2), x, context)["params"]

  def score(perturbations):
    variables = {"params": params, "perturbations": perturbations}
    return attend.apply(variables, x, context, mutable=["intermediates"])[0].sum()

  found = jax.grad(score)({"weights_3": jnp.zeros((2, 2, 3, 4))})["weights_3"]
  value = (context @ params["value"]["kernel"] + params["value"]["bias"][None, None]).reshape(2, 4, 2, 4)
  slope = jnp.einsum("bkhd,hd->bhk", value, params["out"]["kernel"].reshape(2, 4, 8).sum(-1))
  np.testing.assert_allclose(found, jnp.broadcast_to(slope[:, :, None], found.shape), rtol=1e-4, atol=1e-5)

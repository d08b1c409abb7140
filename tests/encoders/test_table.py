"""The FT-Transformer: its tokens are those of the paper's equations, with missing values and unknown categories."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import FTTransformerConfig
from mmjax.models import SharedSpaceConfig

CONFIG = FTTransformerConfig(width=8, depth=1, num_heads=2, numeric=2, categories=(3, 2))
TABLE = jnp.asarray(
  [[[0.5, 0], [-2, 0], [1, 0], [2, 0]], [[0, 1], [1, 0], [0, 0], [0, 1]], [[0, 1], [0, 1], [3, 0], [1, 0]]], jnp.float32
)


@pytest.fixture(scope="module")
def params():
  return jax.jit(CONFIG.build().init)(jax.random.key(0), TABLE)["params"]


def test_tokens_are_the_papers(params, monkeypatch):
  seen = {}
  monkeypatch.setattr(
    "mmjax.encoders.table.Transformer", lambda *_, **__: lambda x, rng: (seen.update(x=x), (x, x[:, 0]))[1]
  )
  rng = np.random.default_rng(0)
  drawn = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), dict(params))
  drawn.pop("transformer")
  encoded = CONFIG.build().apply({"params": drawn}, TABLE)
  w, b, m = (np.asarray(drawn[name]) for name in ("feature_scale", "feature_bias", "missing_bias"))
  e = np.asarray(drawn["category_embedding"]["token_embedding"])
  assert e.shape == (3 + 1 + 2 + 1, 8)
  expected = [
    [0.5 * w[0] + b[0], -2 * w[1] + b[1], e[1] + b[2], e[4 + 2] + b[3]],
    [m[0] + b[0], w[1] + b[1], e[0] + b[2], m[3] + b[3]],
    [m[0] + b[0], m[1] + b[1], e[3] + b[2], e[4 + 1] + b[3]],
  ]
  np.testing.assert_allclose(seen["x"][:, 1:], expected, rtol=1e-6)
  np.testing.assert_array_equal(seen["x"][:, 0], np.repeat(np.asarray(drawn["class_token"]), 3, 0))
  assert encoded.mask.shape == (3, 5) and encoded.mask.all()


def test_a_missing_or_unknown_value_begins_as_the_fields_bias_and_a_code_stays_in_its_field(params):
  encode = jax.jit(lambda table: CONFIG.build().apply({"params": params}, table).pooled)
  zero = TABLE.at[1].set(0.0)
  np.testing.assert_allclose(encode(TABLE)[1], encode(zero.at[1, 1, 0].set(1.0))[1], rtol=1e-6)
  beyond = encode(TABLE.at[0, 2, 0].set(99.0))
  np.testing.assert_array_equal(beyond[0], encode(TABLE.at[0, 2, 0].set(3.0))[0])


def test_a_run_sets_the_fields_of_the_tower():
  learnt = {"table": {"numeric": {"a": {}, "b": {}}, "categorical": {"c": ["x", "y"]}, "scaling": "standard"}}
  model = SharedSpaceConfig(towers={"table": FTTransformerConfig(), "other": CONFIG}).fitted(learnt)
  assert (model.towers["table"].numeric, model.towers["table"].categories) == (2, (2,))
  assert (
    model.towers["other"] is CONFIG and SharedSpaceConfig(towers={"x": CONFIG}).fitted(learnt).towers["x"] is CONFIG
  )
  assert model.towers["table"].example(3).shape == (3, 3, 2)
  with pytest.raises(ValueError, match="must describe at least one field"):
    FTTransformerConfig(numeric=0)

"""The plain form of layers: no choice between platforms, and the same results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.two_tower import TwoTower
from mmjax.nn.forms import plain_forms
from tests import tiny

pytestmark = pytest.mark.usefixtures("every_platform")


def test_a_whole_model_has_a_plain_form():
  model, batch = TwoTower(tiny.MODEL), tiny.host_batch(2)
  params = model.init(jax.random.key(0), batch)["params"]
  embed = lambda params: [
    model.apply({"params": params}, batch[name], method=f"encode_{name}") for name in ("image", "text")
  ]
  first = jax.jit(embed)(params)
  assert "platform_index" in str(jax.make_jaxpr(embed)(params))
  with plain_forms():  # a function that was traced before is traced again
    assert "platform_index" not in str(jax.make_jaxpr(embed)(params))
    for found, wanted in zip(jax.jit(embed)(params), first, strict=True):
      np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * float(jnp.abs(wanted).max()))
  assert "platform_index" in str(jax.make_jaxpr(embed)(params))

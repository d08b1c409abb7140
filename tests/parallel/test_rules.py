import jax.numpy as jnp
import pytest

from mmjax.errors import ConfigError
from mmjax.parallel.rules import match_rules

PARAMS = {"image": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}, "logit_scale": jnp.zeros(())}


def test_the_first_rule_that_matches_decides():
  values = match_rules((("bias$", 1), ("^image/", 2), (".*", 3)), PARAMS, purpose="test")
  assert values == {"image": {"kernel": 2, "bias": 1}, "logit_scale": 3}


def test_a_parameter_without_a_rule_is_named():
  with pytest.raises(ConfigError, match="no weight decay rule covers the parameter 'logit_scale'"):
    match_rules((("image/", 1),), PARAMS, purpose="weight decay")


def test_an_expression_that_does_not_compile_is_named():
  with pytest.raises(ConfigError, match=r"'\(kernel' is not a regular expression"):
    match_rules((("(kernel", 1),), PARAMS, purpose="test")

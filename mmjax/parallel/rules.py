"""One matcher for everything that is chosen by a parameter's path: placement, learning rate, decay, freezing."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax

from mmjax.errors import ConfigError

T = TypeVar("T")

# Ordered (regular expression, value) pairs; the first expression that is found in a path decides. Anchor with ^ and $.
Rules = Sequence[tuple[str, T]]


def parameter_path(key_path: tuple[Any, ...]) -> str:
  """`image/blocks/mlp/up/kernel` for the key path of a leaf."""
  return jax.tree_util.keystr(key_path, simple=True, separator="/")


def match_rules(rules: Rules[T], tree: Any, *, purpose: str) -> Any:
  """Gives each leaf of `tree` the value of the first rule whose expression is found in its path (re.search).

  Args:
    rules: ordered (regular expression, value) pairs.
    tree: parameters, or their shapes.
    purpose: what the rules decide, for the error message ("weight decay", "placement").
  Returns: a tree of the same structure that holds values.
  Raises:
    ConfigError: an expression does not compile, or a parameter is covered by no rule; both are named.
  """
  compiled = [(_compile(expression, purpose), value) for expression, value in rules]

  def value_of(key_path, _):
    path = parameter_path(key_path)
    for expression, value in compiled:
      if expression.search(path):
        return value
    raise ConfigError(
      f"no {purpose} rule covers the parameter {path!r}; rules: {[e for e, _ in rules]}. "
      'Add one, or end the list with (".*", default).'
    )

  return jax.tree_util.tree_map_with_path(value_of, tree)


def _compile(expression: str, purpose: str) -> re.Pattern[str]:
  try:
    return re.compile(expression)
  except re.error as error:
    raise ConfigError(f"the {purpose} rule {expression!r} is not a regular expression: {error}") from error

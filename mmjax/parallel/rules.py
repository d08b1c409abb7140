"""Rules on parameter paths, for placement, learning rate, weight decay and freezing."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax

from mmjax.errors import ConfigError

T = TypeVar("T")

# Ordered (regular expression, value) pairs. The first expression found in a path decides. Use ^ and $ as anchors.
Rules = Sequence[tuple[str, T]]


def parameter_path(key_path: tuple[Any, ...]) -> str:
  """Path of a leaf as a string, such as `image/blocks/mlp/up/kernel`."""
  return jax.tree_util.keystr(key_path, simple=True, separator="/")


def match_rules(rules: Rules[T], tree: Any, *, purpose: str) -> Any:
  """Gives each leaf of `tree` the value of the first rule whose expression is found in its path (re.search).

  Args:
    rules: ordered (regular expression, value) pairs.
    tree: parameters, or their shapes.
    purpose: subject of the rules, for the error message ("weight decay", "placement").
  Returns: a tree of the same structure that holds values.
  Raises:
    ConfigError: an expression does not compile, or no rule covers a parameter. The message names it.

  Example:
    >>> from mmjax.parallel.rules import match_rules
    >>> match_rules([("bias$", 0.0), (".*", 0.1)], {"kernel": 1, "bias": 2}, purpose="weight decay")
    {'bias': 0.0, 'kernel': 0.1}
  """
  compiled = [(_compile(expression, purpose), value) for expression, value in rules]

  def value_of(key_path, _):
    path = parameter_path(key_path)
    for expression, value in compiled:
      if expression.search(path):
        return value
    raise ConfigError(
      f"no {purpose} rule covers the parameter {path!r}; rules: {[e for e, _ in rules]}. "
      + _REMEDIES.get(purpose, 'Add one, or end the list with (".*", default).')
    )

  return jax.tree_util.tree_map_with_path(value_of, tree)


_REMEDIES = {
  "placement": "Add one with --parallel.placement '/kernel$' largest, or in the script with "
  'ParallelConfig(placement=(("/kernel$", "largest"),))'
}


def _compile(expression: str, purpose: str) -> re.Pattern[str]:
  try:
    return re.compile(expression)
  except re.error as error:
    raise ConfigError(f"the {purpose} rule {expression!r} is not a regular expression: {error}") from error

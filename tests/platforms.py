"""Most tests trace a CPU's branch of what is computed differently from platform to platform, and no other.

`lax.platform_dependent` traces and differentiates every branch, of which lowering for a CPU keeps one: that is nearly
half of the time of tracing a training step, and more for the compiler to remove. Here the other branches are asked once
for each shape whether they would give the same shapes and dtypes, as `lax.platform_dependent` demands. The tests of
layers and of plans have every branch (`every_platform` in conftest.py), and so has every process that a test starts.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax

_EVERY = lax.platform_dependent
_checked: set[Any] = set()


def install() -> None:
  lax.platform_dependent = of_a_cpu


@contextlib.contextmanager
def every() -> Iterator[None]:
  """Traces every platform's branch within."""
  lax.platform_dependent = _EVERY
  yield
  install()


def of_a_cpu(*args: Any, default: Callable | None = None, **branches: Callable) -> Any:
  """As lax.platform_dependent on a CPU."""
  chosen = branches.get("cpu", default)
  result = chosen(*args)
  for branch in (default, *branches.values()):
    check(branch, chosen, args, result)
  return result


def check(branch: Callable | None, chosen: Callable, args: Any, result: Any) -> None:
  """Asserts that a branch gives what the chosen one gave, once for all arguments that look the same."""
  leaves, form = jax.tree.flatten(args)
  what = (_named(branch), _named(chosen), form, *map(jax.typeof, leaves))
  if branch is None or branch is chosen or what in _checked:
    return
  found, wanted = (jax.tree.map(lambda x: (x.shape, x.dtype), each) for each in (jax.eval_shape(branch, *args), result))
  assert found == wanted, f"{branch} gives {found}, a CPU's branch {wanted}"
  _checked.add(what)


def _named(branch: Callable | None) -> Any:
  if not isinstance(branch, functools.partial):
    return branch
  return branch.func, branch.args, tuple(sorted(branch.keywords.items()))

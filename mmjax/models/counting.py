"""FLOPs of matrix products and convolutions, counted from a function's jaxpr, for models without a formula."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend


def traced_flops(fn: Callable[..., Any], *args: Any) -> int:
  """FLOPs of all matrix products and convolutions of `fn`: two per multiply-add. Arguments may be shapes.

  * Loops count once per iteration.
  * Of the branches of a conditional, the most expensive one counts. (They are the same computation for different
    platforms.)
  * Work of one device inside shard_map counts for each device.
  * Operations that XLA would remove are counted.

  Raises:
    ValueError: a while loop contains matrix products or convolutions, so its number of iterations is unknown.
  """
  return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def training_flops(fn: Callable[..., Any], params: Any, *args: Any) -> int:
  """FLOPs of a loss and its gradient: three times the forward FLOPs of everything that depends on `params`.

  Everything else (such as the forward pass of a teacher) has no backward pass and counts once. `fn` takes `params` as
  its first argument. It raises the same errors as `traced_flops`.
  """
  jaxpr = jax.make_jaxpr(fn)(params, *args).jaxpr
  learned = set(jaxpr.invars[: len(jax.tree.leaves(params))])
  total = 0
  for equation in jaxpr.eqns:
    depends = any(not isinstance(v, jax.extend.core.Literal) and v in learned for v in equation.invars)
    learned |= set(equation.outvars) if depends else set()
    total += (3 if depends else 1) * _equation(equation)
  return total


def _count(jaxpr: Any) -> int:
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  match name:
    case "dot_general":
      (contracted, _), _ = params["dimension_numbers"]
      left = equation.invars[0].aval.shape
      return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    case "conv_general_dilated":
      kernel, numbers = equation.invars[1].aval.shape, params["dimension_numbers"]
      per_output = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
      return 2 * math.prod(equation.outvars[0].aval.shape) * per_output
    case "scan":
      return params["length"] * _count(params["jaxpr"].jaxpr)
    case "cond":
      return max(_count(branch.jaxpr) for branch in params["branches"])
    case "shard_map":
      return params["mesh"].size * _count(params["jaxpr"])
    case "while":
      inside = _count(params["body_jaxpr"].jaxpr)
      if inside:
        raise ValueError("a while loop multiplies matrices, and its number of iterations is unknown: use a scan")
      return 0
  return sum(_count(getattr(inner, "jaxpr", inner)) for inner in _inner(equation))


def _inner(equation: Any) -> list[Any]:
  """Jaxprs inside an equation (jit, remat). For a function with a custom derivative, the jaxpr of the function."""
  names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
  return [equation.params[name] for name in names if name in equation.params][:1]

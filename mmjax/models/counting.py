"""The matmuls and convolutions of a function, counted from its jaxpr: for models that have no formula of their own."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend


def traced_flops(fn: Callable[..., Any], *args: Any) -> int:
  """Two per multiply-add of every matmul and convolution that `fn` asks for; arguments may be shapes.

  Loops count once per iteration; of branches the most expensive one counts (they are the same mathematics for different
  platforms); what shard_map does on one device counts for each of them. What XLA finds to be superfluous is counted.

  Raises: ValueError for a loop whose number of iterations depends on values.
  """
  return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def training_flops(fn: Callable[..., Any], params: Any, *args: Any) -> int:
  """FLOPs of a loss and its gradient, by convention three times what the forward pass computes from `params`.

  What does not depend on them (a teacher's forward pass) has no backward pass and counts once. Arguments and errors are
  those of traced_flops.
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
        raise ValueError("a while loop multiplies matrices, and how often is not known before it runs: use a scan")
      return 0
  return sum(_count(getattr(inner, "jaxpr", inner)) for inner in _inner(equation))


def _inner(equation: Any) -> list[Any]:
  """The jaxprs a call carries (jit, remat); of a function with its own derivative, the function."""
  names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
  return [equation.params[name] for name in names if name in equation.params][:1]

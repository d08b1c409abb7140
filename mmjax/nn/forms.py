"""Forms of one computation: the fastest for each platform, and a plain one for export."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

# A context that JAX knows: a function that was traced outside is traced again inside, not taken from a cache.
_PLAIN = jax.make_user_context(False)


def plain_forms() -> Any:
  """Context in which every layer is traced in its plain form.

  The plain form has no choice between platforms, which is an operation that only XLA has. Other formats, such as ONNX,
  cannot hold it. The results are equal to rounding.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.nn.attention import attention
    >>> from mmjax.nn.forms import plain_forms
    >>> x = jnp.ones((1, 2, 1, 4))
    >>> with plain_forms():
    ...   "platform_index" in str(jax.make_jaxpr(attention)(x, x, x))
    False
  """
  return _PLAIN(True)


def by_platform(*args: Any, default: Callable[..., Any], **branches: Callable[..., Any]) -> Any:
  """Compute a function in the form of the platform that the program is lowered for.

  Args:
    args: arguments of the function.
    default: form for platforms without one of their own, and the plain form.
    branches: forms by platform: cpu, cuda, rocm or tpu.
  Returns: the result. All forms give it in the same shapes and dtypes.
  """
  return default(*args) if _PLAIN.value else lax.platform_dependent(*args, default=default, **branches)

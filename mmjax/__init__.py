"""mmjax: multimodal pretraining in JAX."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from mmjax.run import Run, load_run

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load_run"]


def __getattr__(name: str) -> Any:
  """`mmjax.load_run` loads JAX and the models only when it is asked for."""
  if name not in __all__:
    raise AttributeError(f"module 'mmjax' has no attribute {name!r}")
  from mmjax import run

  return getattr(run, name)

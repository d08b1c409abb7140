"""mmjax: multimodal pretraining in JAX."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.run import Run, load_run
else:
  __getattr__, __dir__ = lazy_names(__name__, {"run": ["Run", "load_run"]})

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load_run"]

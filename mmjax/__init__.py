"""mmjax: multimodal pretraining in JAX."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.loading import load_run
  from mmjax.run import Run
else:
  __getattr__, __dir__ = lazy_names(__name__, {"loading": ["load_run"], "run": ["Run"]})

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load_run"]

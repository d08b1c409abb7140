"""Trained models outside training: export, int8 and half precision, pruning, latency, a service over HTTP."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.deploy.formats import DeployError
  from mmjax.deploy.loading import Loaded, load
  from mmjax.deploy.pruning import prune, pruned_config
  from mmjax.deploy.retraining import write_weights
  from mmjax.deploy.writing import export
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "formats": ["DeployError"],
      "loading": ["Loaded", "load"],
      "pruning": ["prune", "pruned_config"],
      "retraining": ["write_weights"],
      "writing": ["export"],
    },
  )

__all__ = ["DeployError", "Loaded", "export", "load", "prune", "pruned_config", "write_weights"]

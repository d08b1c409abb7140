"""Trained models outside training: export, int8 and half precision, latency, a service over HTTP."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.deploy.formats import DeployError
  from mmjax.deploy.loading import Loaded, load
  from mmjax.deploy.writing import export
else:
  __getattr__, __dir__ = lazy_names(
    __name__, {"formats": ["DeployError"], "loading": ["Loaded", "load"], "writing": ["export"]}
  )

__all__ = ["DeployError", "Loaded", "export", "load"]

"""Training: state, step, loop, optimiser, checkpoints and logs."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names
from mmjax.settings import NumericsConfig, OptimizerConfig

if TYPE_CHECKING:
  from mmjax.train.loop import Outcome, train
  from mmjax.train.setup import Training, prepare
else:
  __getattr__, __dir__ = lazy_names(__name__, {"loop": ["Outcome", "train"], "setup": ["Training", "prepare"]})

__all__ = ["NumericsConfig", "OptimizerConfig", "Outcome", "Training", "prepare", "train"]

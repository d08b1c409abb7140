"""The image tokenizer of a text-to-image run: its parameters are read from its own run before the first step."""

from pathlib import Path

import jax
import jax.numpy as jnp

from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, read_experiment
from mmjax.kinds import Kind
from mmjax.models.text_to_image import TextToImageConfig
from mmjax.run import CHECKPOINTS, CONFIG
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.state import TrainState

_COLOURS = ("mean", "std", "trim")
"""Settings of `data` that both runs must share, so that the codes mean the same colours."""


def with_image_tokenizer(
  experiment: Experiment, state: TrainState, shardings: TrainState, kinds: tuple[type[Kind], ...] = ()
) -> TrainState:
  """Put the image tokenizer of model.image_from into a random state. Other models are left unchanged.

  Args:
    experiment: the run.
    state: the random state before the first step.
    shardings: its shardings.
    kinds: the classes that the script defines.
  Raises:
    ConfigError: image_from is empty or no run, or its model or its colours differ from those of this run.
  """
  model = experiment.model
  if not isinstance(model, TextToImageConfig):
    return state
  folder = Path(model.image_from).expanduser()
  if not model.image_from or not (folder / CHECKPOINTS).is_dir():
    found = f"{model.image_from!r} is no workdir of a run" if model.image_from else "it is empty"
    raise ConfigError(
      f"model.image_from must be the workdir of the run of an image tokenizer, and {found}: train one first "
      "(experiments/image_codes_scenes.py), and set --model.image-from WORKDIR"
    )
  other = read_experiment(folder / CONFIG, kinds=kinds)
  if other.model != model.image:
    raise ConfigError(
      f"the run in {folder} has the model {other.model}, but model.image is {model.image}: make them equal"
    )
  for name in _COLOURS:
    mine, theirs = getattr(experiment.data, name), getattr(other.data, name)
    if mine != theirs:
      raise ConfigError(f"data.{name} is {mine}, but {theirs} in {folder}, whose codes would be of other colours")
  shapes, places = state.params["image"], shardings.params["image"]
  checkpoints = Checkpoints(folder / CHECKPOINTS, read_only=True)
  found, _ = checkpoints.restore_params(shapes, places, average=other.evaluation.average)
  checkpoints.close()
  params = {**state.params, "image": found}
  # The average has copies, because a step gives up the buffers of both.
  ema = None if state.ema is None else {**state.ema, "image": jax.tree.map(jnp.copy, found)}
  return state.replace(params=params, ema=ema)

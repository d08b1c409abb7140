"""Frozen parts of a model that reads texts with images: its image tower and language model, from runs or files."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.data.text.tokenizer import Tokenizer, read_vocabulary
from mmjax.encoders.config import TowerConfig
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, read_experiment
from mmjax.kinds import Kind
from mmjax.models.config import towers
from mmjax.models.gpt import GptConfig
from mmjax.models.interleaved import InterleavedConfig
from mmjax.models.sharding import SHARDING_RULES
from mmjax.parallel.mesh import parameter_shardings
from mmjax.run import CHECKPOINTS, CONFIG, TOKENIZER
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.parameters import initial_params
from mmjax.train.state import TrainState

_OF_THE_TOKENIZER = (
  "max_length",
  "pad_id",
  "eos_id",
  "scan",
  "dtype",
  "attention",
  "remat",
  "dropout",
  "attention_dropout",
)
"""Fields of a language model that do not change its logits, or that the tokenizer of this run sets."""
_COLOURS = ("mean", "std", "trim")
"""Settings of `data` that a run of the image tower must share."""


def frozen_parts(experiment: Experiment, shardings: TrainState, kinds: tuple[type[Kind], ...] = ()) -> dict[str, Any]:
  """Read the frozen image tower and language model of a run. Other models have no such parts.

  Args:
    experiment: the run.
    shardings: shardings of its state.
    kinds: the classes that the script defines.
  Returns: their parameters, "image" and "language".
  Raises:
    ConfigError: image_from or language_from is empty, is no run and no checkpoint, or has another model.
  """
  model = experiment.model
  if not isinstance(model, InterleavedConfig):
    return {}
  return {"image": _image(experiment, model, shardings, kinds), "language": _language(model, shardings, kinds)}


def with_parts(state: TrainState, parts: Mapping[str, Any]) -> TrainState:
  """Put parts into the parameters of a state, and into their moving average."""
  # The average has copies, because a step gives up the buffers of both.
  ema = None if state.ema is None else {**state.ema, **jax.tree.map(jnp.copy, dict(parts))}
  return state.replace(params={**state.params, **parts}, ema=ema)


def check_vocabulary(experiment: Experiment, tokenizer: Tokenizer | None) -> None:
  """Raise ConfigError if the words of a frozen language model have other ids in the tokenizer of the run."""
  model = experiment.model
  if not isinstance(model, InterleavedConfig) or tokenizer is None:
    return
  folder = Path(model.language_from).expanduser()
  file = next(
    (path for path in (folder / TOKENIZER / "tokenizer.json", folder / "tokenizer.json") if path.is_file()), None
  )
  if file is None:
    return  # frozen_parts compares the sizes
  theirs = read_vocabulary(file).get_vocab()
  new = tokenizer.vocab_size - len(theirs)
  if not tokenizer.extends(theirs) or new != model.text.new_tokens:
    raise ConfigError(
      f"the language model in {folder} has a vocabulary of {len(theirs)} tokens, and the tokenizer of this run has "
      f"{tokenizer.vocab_size}, which must be the same and model.text.new_tokens={model.text.new_tokens} more: set "
      f"--data.tokenizer.path {file}"
    )


def _image(experiment: Experiment, model: InterleavedConfig, shardings: Any, kinds: tuple[type[Kind], ...]) -> Any:
  folder, places = _given("image_from", model.image_from, "an image tower"), shardings.params["image"]
  if _is_run(folder):
    other = read_experiment(folder / CONFIG, kinds=kinds)
    for name in _COLOURS:
      mine, theirs = getattr(experiment.data, name), getattr(other.data, name)
      if mine != theirs:
        raise ConfigError(f"data.{name} is {mine}, but {theirs} in {folder}, whose image tower saw other colours")
    _check_equal("model.image", model.image, towers(other.model).get("image"), folder)
    return jax.device_put(_run_params(folder, other, shardings)["image"], places)
  config, params = _published(folder)
  if not isinstance(config, TowerConfig):
    config, params = towers(config).get("image"), params.get("image")
  _check_equal("model.image", model.image, config, folder)
  return jax.device_put(params, places)


def _language(model: InterleavedConfig, shardings: Any, kinds: tuple[type[Kind], ...]) -> Any:
  folder, places = _given("language_from", model.language_from, "a language model"), shardings.params["language"]
  other = read_experiment(folder / CONFIG, kinds=kinds) if _is_run(folder) else None
  config, params = (other.model, None) if other is not None else _published(folder)
  if not isinstance(config, GptConfig):
    raise ConfigError(f"model.language_from {folder} is {type(config).__name__}, not a language model (GptConfig)")
  mine, theirs = model.text.language, config.text
  if mine.vocab_size != theirs.vocab_size:
    raise ConfigError(
      f"the language model in {folder} has {theirs.vocab_size} words, and the tokenizer of this run "
      f"{model.text.vocab_size}, of which model.text.new_tokens={model.text.new_tokens} are new: use the tokenizer of "
      "the language model"
    )
  if mine.positions == "learned" and mine.max_length != theirs.max_length:
    raise ConfigError(
      f"the language model in {folder} has {theirs.max_length} positions, and data.tokenizer.max_length is "
      f"{mine.max_length}: make them equal"
    )
  same = dataclasses.replace(theirs, **{name: getattr(mine, name) for name in _OF_THE_TOKENIZER})
  _check_equal("model.text", mine, same, folder)
  params = _run_params(folder, other, shardings) if other is not None else params
  return jax.device_put(params, places)


def _given(field: str, path: str, what: str) -> Path:
  folder = Path(path).expanduser()
  if not path or not folder.exists():
    found = f"{path!r} does not exist" if path else "it is empty"
    raise ConfigError(
      f"model.{field} must be the workdir of a run with {what}, or a checkpoint of one, and {found}: set "
      f"--model.{field.replace('_', '-')} PATH"
    )
  return folder


def _is_run(folder: Path) -> bool:
  return (folder / CONFIG).is_file() and (folder / CHECKPOINTS).is_dir()


def _check_equal(name: str, mine: Any, theirs: Any, folder: Path) -> None:
  if theirs is None or type(mine) is not type(theirs):
    found = "no image tower" if theirs is None else type(theirs).__name__
    raise ConfigError(f"{name} is {type(mine).__name__}, and {folder} has {found}: make them equal")
  other = [
    f"{field.name} {getattr(mine, field.name)!r} (there {getattr(theirs, field.name)!r})"
    for field in dataclasses.fields(mine)
    if getattr(mine, field.name) != getattr(theirs, field.name)
  ]
  if other:
    raise ConfigError(f"{name} differs from the model in {folder}: {', '.join(other)}; make them equal")


def _run_params(folder: Path, other: Experiment, shardings: Any) -> Mapping[str, Any]:
  if other.adapter.rank:
    raise ConfigError(f"the run in {folder} has adapters: export it (export --to mmjax), and name that folder instead")
  mesh = jax.tree.leaves(shardings.params)[0].mesh
  fresh = functools.partial(initial_params, other, other.model.build())
  shapes = jax.eval_shape(fresh, jax.random.key(0))
  checkpoints = Checkpoints(folder / CHECKPOINTS, read_only=True)
  params, _ = checkpoints.restore_params(
    shapes, parameter_shardings(list(SHARDING_RULES), shapes, mesh), average=other.evaluation.average
  )
  checkpoints.close()
  return params


def _published(folder: Path) -> tuple[Any, Any]:
  from mmjax.interop import load  # here, so that other runs need none of it

  model, params = load(folder)
  return model.config, params

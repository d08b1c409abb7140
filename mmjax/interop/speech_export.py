"""Settings beside the weights of a Whisper that a run trained: how its texts are generated, and its features."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mmjax.data import Sound, WhisperMel
from mmjax.data.features import run_columns
from mmjax.errors import ConfigError
from mmjax.interop.errors import InteropError
from mmjax.interop.generation_file import FILE as GENERATION
from mmjax.interop.speech_settings import HOP, RATE
from mmjax.models.whisper import WhisperConfig
from mmjax.run import Run


def named_begin(config: Any, run: Run) -> Any:
  """Set the token with which texts begin to that of the run's tokenizer. Raises ConfigError if it has none."""
  begin = None if run.tokenizer is None else run.tokenizer.begin_id
  if begin is None:
    raise ConfigError(f"the run in {run.workdir} has no token that begins a text: set --data.tokenizer.bos-token")
  return dataclasses.replace(config, begin_id=begin)


def write_speech(config: WhisperConfig, run: Run, folder: Path) -> None:
  """Write generation_config.json of a run's model.

  Args:
    config: the model, from `named_begin`.
    run: the run.
    folder: folder of the checkpoint.
  Raises: InteropError: the run makes other features than Whisper's, which the files of a checkpoint cannot describe.
  """
  audio = run_columns(run.experiment.data).get("audio")
  features = WhisperMel(RATE, config.audio.mel_bins)
  usual = Sound(features=features, seconds=config.audio.frames * HOP / RATE)
  free: dict[str, Any] = {
    name: getattr(audio, name, None) for name in ("field", "longer", "max_seconds", "augmentation")
  }
  if not isinstance(audio, Sound) or dataclasses.replace(usual, **free) != dataclasses.replace(audio, frames=None):
    raise InteropError(
      f"the column audio of the run in {run.workdir} makes other features than Whisper's feature extractor: WhisperMel "
      f'of {RATE} Hz, clips of {usual.seconds:g} s, pad="silence". Train with these, or use format="mmjax"'
    )
  assert run.tokenizer is not None
  fields = {
    "_from_model_config": False,
    "decoder_start_token_id": config.begin_id,
    "bos_token_id": config.begin_id,
    "eos_token_id": config.text.eos_id,
    "pad_token_id": config.text.pad_id,
    "max_length": min(config.text.max_length, run.tokenizer.config.max_length),
    "suppress_tokens": [],
    "begin_suppress_tokens": [],
    "is_multilingual": False,
    "return_timestamps": False,
  }
  (folder / GENERATION).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")

"""Settings of sounds beside the weights, as a column and back: the feature extractors of transformers.

The one of AST is read and written here, that of CLAP in clap_sound.py.
"""

from pathlib import Path
from typing import Any

from mmjax.data import Sound
from mmjax.data.sound.features import Fbank
from mmjax.encoders import AstConfig, HtsatConfig
from mmjax.interop import clap_sound
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.processor import PREPROCESSOR_CONFIG, find_settings

EXTRACTOR = "ASTFeatureExtractor"
SECONDS_PER_FRAME = 0.01
WITHOUT_EFFECT = {
  "feature_size": "not read by this class",
  "padding_side": "not read by this class",
  "return_attention_mask": "form of the library's outputs; the model reads no mask",
  "processor_class": "names a class",
}


def read_sound(folder: Path, tower: AstConfig | HtsatConfig) -> Sound:
  """Read the column of sounds that a checkpoint takes.

  Args:
    folder: folder of the checkpoint. Without settings of a feature extractor, the column has the defaults of the class.
    tower: the tower for sounds.
  Returns: the column. A longer clip is cut at its middle in evaluation, where transformers cuts its end.
  Raises: InteropError: the settings are not those of the model, or mmjax does not support them.
  """
  given = find_settings(folder, "feature_extractor")
  fields = Fields({}, str(folder / PREPROCESSOR_CONFIG)) if given is None else given
  if isinstance(tower, HtsatConfig):
    return clap_sound.from_extractor(fields, tower.most_frames, tower.bands)
  found = from_extractor(fields, tower.frames, tower.bands)
  fields.finish(WITHOUT_EFFECT)
  return found


def from_extractor(fields: Fields, frames: int, bands: int) -> Sound:
  """Make the column of the settings of an ASTFeatureExtractor.

  Args:
    fields: preprocessor_config.json.
    frames, bands: size of the model's input.
  Raises: InteropError: as for `read_sound`.
  """
  fields.only("feature_extractor_type", EXTRACTOR, EXTRACTOR)
  fields.only("padding_value", 0.0, 0.0)
  for name, wanted in (("max_length", frames), ("num_mel_bins", bands)):
    if fields.integer(name, 1024 if name == "max_length" else 128) != wanted:
      raise fields.wrong(name, f"{wanted}, which the model takes")
  rate = fields.integer("sampling_rate", 16000)
  if rate % 200:
    raise fields.wrong("sampling_rate", "a multiple of 200, so that a frame of 25 ms has a whole number of samples")
  mean, std = fields.number("mean", -4.2677393), fields.number("std", 4.5689974)
  if not fields.flag("do_normalize", True):
    mean, std = 0.0, 0.5  # (x - 0) / (2 * 0.5)
  if not std > 0:
    raise fields.wrong("std", "above 0")
  return Sound(features=Fbank(rate, bands, mean, std), seconds=_seconds(frames), frames=frames, pad="value")


def write_sound(column: Sound, tower: Any) -> dict[str, Any]:
  """Make preprocessor_config.json of a column, for a model with this tower for sounds.

  Raises: InteropError: its feature extractor has no such settings.
  """
  return clap_sound.to_extractor(column) if isinstance(tower, HtsatConfig) else to_extractor(column)


def to_extractor(column: Sound) -> dict[str, Any]:
  """Make preprocessor_config.json of a column for AST.

  Raises: InteropError: the feature extractor of AST has no such settings.
  """
  features = column.features
  kept = isinstance(features, Fbank) and column == Sound(
    field=column.field,
    features=features,
    seconds=_seconds(column.num_frames),
    frames=column.num_frames,
    longer=column.longer,
    max_seconds=column.max_seconds,
    pad="value",
    augmentation=column.augmentation,
  )
  if not kept or not isinstance(features, Fbank):
    raise InteropError(
      f"{EXTRACTOR} cannot hold this column of sounds: it has the features Fbank, seconds of 10 ms a frame and one "
      'window, pad="value", and no loudness or normalisation of its own. Leave preprocess out, or use these settings'
    )
  return {
    "feature_extractor_type": EXTRACTOR,
    "feature_size": 1,
    "sampling_rate": features.rate,
    "num_mel_bins": features.mels,
    "max_length": column.num_frames,
    "do_normalize": True,
    "mean": features.mean,
    "std": features.std,
    "padding_value": 0.0,
    "padding_side": "right",
    "return_attention_mask": False,
  }


def _seconds(frames: int) -> float:
  """Length in seconds of a clip of `frames` frames: a window of 25 ms, and 10 ms for each further frame."""
  return round(0.025 + (frames - 1) * SECONDS_PER_FRAME, 3)

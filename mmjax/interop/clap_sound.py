"""Settings of sounds beside the weights: the feature extractor of CLAP in transformers, as a column and back."""

from typing import Any, Literal

from mmjax.data import Sound
from mmjax.data.sound.features import LogMel
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields

EXTRACTOR = "ClapFeatureExtractor"
_PADS: dict[str, Literal["repeat", "silence"]] = {"repeatpad": "repeat", "pad": "silence"}
_WITHOUT_EFFECT = {
  "padding_side": "not read by this class",
  "padding_value": "not read by this class",
  "top_db": "not read by this class",
  "return_attention_mask": "form of the library's outputs; the model reads no mask",
  "processor_class": "names a class",
  "nb_frequency_bins": "follows from fft_window_size",
  "nb_max_frames": "follows from nb_max_samples and hop_length",
  "chunk_length_s": "max_length_s decides",
  "n_fft": "fft_window_size decides",
}


def from_extractor(fields: Fields, most_frames: int, bands: int) -> Sound:
  """Make the column of the settings of a ClapFeatureExtractor.

  Args:
    fields: preprocessor_config.json; missing fields have the defaults of the class, but for truncation.
    most_frames, bands: size of the model's input.
  Returns: the column. Of a longer clip, transformers takes a random part, and the column the middle one in evaluation.
  Raises: InteropError: the settings are not those of the model, or mmjax does not support them.
  """
  fields.only("feature_extractor_type", EXTRACTOR, EXTRACTOR)
  if fields.integer("feature_size", 64) != bands:
    raise fields.wrong("feature_size", f"{bands}, which the model takes")
  fields.only("truncation", "rand_trunc", "rand_trunc")  # "fusion" makes four spectrograms of a long clip
  rate, window = fields.integer("sampling_rate", 48000), fields.integer("fft_window_size", 1024)
  if window % 2:
    raise fields.wrong("fft_window_size", "an even number")
  features = LogMel(
    rate=rate,
    mels=bands,
    window=window,
    hop=fields.integer("hop_length", 480),
    fft=window,
    low=fields.number("frequency_min", 0),
    high=fields.number("frequency_max", 14000),
    edges="reflect",
    logarithm="db",
  )
  seconds = fields.number("max_length_s", 10)
  fields.only("nb_max_samples", round(seconds * rate), round(seconds * rate))
  column = Sound(features=features, seconds=seconds, pad=fields.choice("padding", _PADS, "repeatpad"))
  if column.num_frames > most_frames:
    raise fields.wrong("max_length_s", f"short enough for {most_frames} frames, which the model takes")
  fields.finish(_WITHOUT_EFFECT)
  return column


def to_extractor(column: Sound) -> dict[str, Any]:
  """Make preprocessor_config.json of a column. Raises InteropError: the class has no such settings."""
  f, names = column.features, {ours: theirs for theirs, ours in _PADS.items()}
  if isinstance(f, LogMel) and column.pad in names:
    samples = round(column.seconds * f.rate)
    record = {
      "feature_extractor_type": EXTRACTOR,
      "feature_size": f.mels,
      "sampling_rate": f.rate,
      "hop_length": f.hop,
      "fft_window_size": f.window,
      "n_fft": f.window,
      "nb_frequency_bins": f.window // 2 + 1,
      "frequency_min": f.low,
      "frequency_max": f.highest,
      "max_length_s": int(column.seconds) if column.seconds == int(column.seconds) else column.seconds,
      "chunk_length_s": int(column.seconds) if column.seconds == int(column.seconds) else column.seconds,
      "nb_max_samples": samples,
      "nb_max_frames": samples // f.hop,
      "padding": names[column.pad],
      "truncation": "rand_trunc",
      "padding_value": 0.0,
      "padding_side": "right",
      "return_attention_mask": False,
    }
    back = from_extractor(Fields(record, EXTRACTOR), column.num_frames, f.mels)
    if (back.features, back.seconds, back.num_frames) == (f, column.seconds, column.num_frames):
      plain = (column.loudness, column.normalize) == (None, "none")
      if plain:
        return record
  raise InteropError(
    f'{EXTRACTOR} cannot hold this column of sounds: it has the features LogMel(edges="reflect", logarithm="db") with '
    'window equal to fft, pad="repeat" or "silence", and no loudness or normalisation of its own. Leave preprocess '
    "out, or use these settings"
  )

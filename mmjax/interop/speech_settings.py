"""Settings beside the weights of Whisper: the features of its sound, and how its texts are generated."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.generation_file import FILE as GENERATION
from mmjax.interop.processor import PREPROCESSOR_CONFIG as FEATURES
from mmjax.interop.processor import PROCESSOR_CONFIG as PROCESSOR
from mmjax.interop.source import Source
from mmjax.models.whisper import WhisperConfig

RATE, HOP = 16_000, 160
"""Samples per second, and samples from one frame to the next (10 ms)."""
_BLANK_OR_END = (220, 50_256)  # transformers' default of begin_suppress_tokens


@dataclasses.dataclass(frozen=True)
class SpeechSettings:
  """Settings of the generation of texts.

  Attributes:
    begin: id of the first token of every text.
    forced: ids of the tokens that follow it if no language and no task is asked for. None: the language of the clip.
    languages: ids of the tokens of languages, by token such as "<|en|>". Empty: one language.
    tasks: ids of the tokens of tasks: "transcribe", "translate" (to English).
    language, task: what is asked for by default.
    no_timestamps: id of the token after which a text has no times.
    suppress, suppress_first: ids of tokens that no text has, and that no text begins with.
    max_length: number of tokens after the prompt. None: as many as the model has.
  """

  begin: int
  forced: tuple[int | None, ...] = ()
  languages: Mapping[str, int] = dataclasses.field(default_factory=dict)
  tasks: Mapping[str, int] = dataclasses.field(default_factory=dict)
  language: str | None = None
  task: str | None = None
  no_timestamps: int | None = None
  suppress: tuple[int, ...] = ()
  suppress_first: tuple[int, ...] = ()
  max_length: int | None = None

  def prompt(self, language: str | None = None, task: str | None = None) -> tuple[int | None, ...]:
    """Ids with which texts begin, as transformers makes them. None stands for the language of the clip.

    Args:
      language: code such as "en"; None: the default, or else the language of the clip.
      task: "transcribe" or "translate"; None: the default.
    Raises: InteropError: the model has no such language or task.
    """
    language, task = language or self.language, task or self.task
    ids: list[int | None] = [self.begin]
    if language is None and task is None:
      ids += self.forced
    if language is not None:
      ids[1:2] = [self._language(language)]
    elif self.languages and len(ids) == 1:
      ids.append(None)
    if task is not None:
      ids.append(self._task(task))
    elif language is not None and self.tasks:
      ids.append(self._task("transcribe"))
    if self.no_timestamps is not None and ids[-1] != self.no_timestamps:
      ids.append(self.no_timestamps)
    return tuple(ids) if self.languages else tuple(one for one in ids if one is not None)

  def _language(self, language: str) -> int:
    token = language if language.startswith("<|") else f"<|{language.lower()}|>"
    if token not in self.languages:
      codes = ", ".join(one.strip("<|>") for one in self.languages)
      has = f"the codes of its languages are {codes}" if codes else "it has one language: leave it out"
      raise InteropError(f"the model has no language {language!r}; {has}")
    return self.languages[token]

  def _task(self, task: str) -> int:
    if task not in self.tasks:
      has = f"its tasks are {', '.join(self.tasks)}" if self.tasks else "it has one task: leave it out"
      raise InteropError(f"the model has no task {task!r}; {has}")
    return self.tasks[task]


def read_speech_generation(source: Source) -> SpeechSettings:
  """Read generation_config.json or, without this file, what older folders have in config.json.

  Raises: InteropError: a setting is not supported. The message names it.
  """
  config = source.config
  assert isinstance(config, WhisperConfig)
  if not (source.folder / GENERATION).is_file():
    return _older(source.fields, config) if source.format == "transformers" else SpeechSettings(config.begin_id)
  return parse_generation(read_json(source.folder / GENERATION), config)


def parse_generation(fields: Fields, config: WhisperConfig) -> SpeechSettings:
  """Read the fields of generation_config.json. Raises InteropError if a setting is not supported."""
  for name, supported in _ONLY.items():
    fields.only(name, supported, supported)
  fields.only("eos_token_id", config.text.eos_id, config.text.eos_id)
  several = fields.flag("is_multilingual", "lang_to_id" in fields)
  length = fields.integer("max_length") if "max_length" in fields else None
  stop = fields.integer("no_timestamps_token_id", least=0) if "no_timestamps_token_id" in fields else None
  found = SpeechSettings(
    begin=fields.integer("decoder_start_token_id", config.begin_id, least=0),
    forced=_forced(fields),
    languages=_numbers(fields, "lang_to_id") if several else {},
    tasks=_numbers(fields, "task_to_id") if several else {},
    language=fields.text("language") if "language" in fields else None,
    task=fields.text("task") if "task" in fields else None,
    no_timestamps=stop,
    suppress=_ids(fields, "suppress_tokens"),
    suppress_first=_ids(fields, "begin_suppress_tokens"),
    max_length=length,
  )
  fields.finish(GENERATION_FIELDS)
  found.prompt()  # refuses a default that the model does not have
  return found


_ONLY: Mapping[str, Any] = {"return_timestamps": False, "do_sample": False, "num_beams": 1}
GENERATION_FIELDS: Mapping[str, str] = {
  **dict.fromkeys(("alignment_heads", "max_initial_timestamp_index"), "used only for times of words"),
  **dict.fromkeys(("pad_token_id", "bos_token_id"), "the model's config.json decides"),
  **dict.fromkeys(("transformers_version", "_from_model_config"), "set by the library that wrote the file"),
  "prev_sot_token_id": "used only with an earlier text as prompt",
  "use_cache": "an implementation with the same results",
}
"""Fields of Whisper's generation_config.json that have no effect, and the reason of each."""


def _older(fields: Fields, config: WhisperConfig) -> SpeechSettings:
  first = "begin_suppress_tokens"
  return SpeechSettings(
    config.begin_id,
    forced=_forced(fields),
    suppress=_ids(fields, "suppress_tokens"),
    suppress_first=_ids(fields, first) if first in fields.values else _BLANK_OR_END,
  )


def _forced(fields: Fields) -> tuple[int | None, ...]:
  """Ids of forced_decoder_ids, which lists (place, id) for the places 1, 2, ..."""
  value = fields.get("forced_decoder_ids") or []
  pairs = [tuple(pair) if isinstance(pair, list | tuple) else () for pair in value] if isinstance(value, list) else [()]
  if any(len(pair) != 2 or pair[0] != place for place, pair in enumerate(pairs, 1)):
    raise fields.wrong("forced_decoder_ids", "a list of [1, id], [2, id], ...")
  return tuple(None if id is None and place == 1 else _id(fields, "forced_decoder_ids", id) for place, id in pairs)


def _ids(fields: Fields, name: str) -> tuple[int, ...]:
  value = fields.get(name) or []
  if not isinstance(value, list):
    raise fields.wrong(name, "a list of token ids")
  return tuple(_id(fields, name, one) for one in value)


def _numbers(fields: Fields, name: str) -> dict[str, int]:
  part = fields.object(name)
  return {token: part.integer(token, least=0) for token in part.values}


def _id(fields: Fields, name: str, value: Any) -> int:
  if type(value) is not int or not 0 <= value < 2**24:
    raise fields.wrong(name, "made of token ids")
  return value


def check_features(fields: Fields, config: WhisperConfig) -> None:
  """Check that the settings of a feature extractor are those of Whisper's features for a model.

  Args:
    fields: the settings.
    config: the model.
  Raises: InteropError: a setting is another one. The message names it.
  """
  for name, value in write_features(config).items():
    fields.only(name, value, _FEATURE_DEFAULTS.get(name))
  fields.finish(FEATURE_FIELDS)


_FEATURE_DEFAULTS: dict[str, Any] = {"feature_extractor_type": "WhisperFeatureExtractor"}
_FEATURE_DEFAULTS |= {"feature_size": 80, "sampling_rate": RATE, "hop_length": HOP, "n_fft": 400}
_FEATURE_DEFAULTS |= {"chunk_length": 30, "padding_value": 0.0, "dither": 0.0}


FEATURE_FIELDS: Mapping[str, str] = {
  "processor_class": "names the class of a processor, not of its features",
  **dict.fromkeys(("mel_filters", "n_samples", "nb_max_frames"), "made from the other settings"),
  **dict.fromkeys(("return_attention_mask", "padding_side"), "form of the library's outputs"),
}
"""Fields of Whisper's preprocessor_config.json that have no effect, and the reason of each."""


def write_features(config: WhisperConfig) -> dict[str, Any]:
  """Write the settings of transformers' WhisperFeatureExtractor."""
  seconds = config.audio.frames * HOP / RATE
  return {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": config.audio.mel_bins,
    "sampling_rate": RATE,
    "hop_length": HOP,
    "chunk_length": int(seconds) if seconds == int(seconds) else seconds,
    "n_fft": 400,
    "padding_value": 0.0,
    "dither": 0.0,
  }


def copy_settings(source: Path, target: Path) -> None:
  """Copy the settings of generation and features of a folder, if it has any."""
  for name in (GENERATION, FEATURES, PROCESSOR):
    if (source / name).is_file():
      shutil.copyfile(source / name, target / name)

"""generation_config.json of transformers: how a language model continues texts, or T5 writes them."""

import dataclasses
from pathlib import Path
from typing import Any

from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields, read_json
from mmjax.interop.without_effect import GENERATION
from mmjax.models.gpt import GptConfig
from mmjax.models.next_word import GenerateConfig
from mmjax.models.seq2seq import Seq2SeqConfig

FILE = "generation_config.json"
_NEW, _TOP_K = 20, 50  # new tokens and top_k where the file names none
_OFF = {
  "num_beams": 1,
  "num_beam_groups": 1,
  "num_return_sequences": 1,
  "min_length": 0,
  "min_new_tokens": 0,
  "no_repeat_ngram_size": 0,
  "encoder_no_repeat_ngram_size": 0,
  "repetition_penalty": 1.0,
  "encoder_repetition_penalty": 1.0,
  "guidance_scale": 1.0,
  "diversity_penalty": 0.0,
  "penalty_alpha": 0.0,
  "remove_invalid_values": False,
  "renormalize_logits": False,
  "token_healing": False,
}
"""Settings that mmjax does not have, and the values that switch them off."""
_OFF_IF_DRAWN = {"typical_p": 1.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "min_p": 0.0}
"""Those that act only on words that are drawn."""


def read_ids(config: GptConfig | Seq2SeqConfig, folder: Path) -> GptConfig | Seq2SeqConfig:
  """Take the end token, padding and the begin token of a folder's generation_config.json.

  The file has precedence over config.json. Only an encoder-decoder has a begin token.

  Args:
    config: the model.
    folder: its folder.
  Returns: the model, whose end token is the first that the file names.
  Raises: InteropError: a number is not that of a token.
  """
  fields = generation_fields(folder)
  if not fields.values:
    return config
  ends = _end_ids(fields)
  end = ends[0] if ends else config.text.eos_id
  # config.json without pad_token_id: padding is its end token.
  pad = end if config.text.pad_id == config.text.eos_id else config.text.pad_id
  pad = fields.integer("pad_token_id", pad, least=0)
  begin: dict[str, Any] = {}
  if isinstance(config, Seq2SeqConfig):
    begin = {"begin_id": fields.integer("decoder_start_token_id", config.begin_id, least=0)}
  return dataclasses.replace(config, text=dataclasses.replace(config.text, eos_id=end, pad_id=pad), **begin)


def read_generation(fields: Fields, prompt_length: int, positions: int) -> GenerateConfig:
  """Read how transformers continues a prompt with a model, if it is asked for nothing else.

  Args:
    fields: its generation_config.json. Where it names nothing, transformers' defaults count.
    prompt_length: tokens of the prompt with its padding, which `max_length` counts as well.
    positions: longest text that the model reads. It limits the length where the file names none.
  Raises: InteropError: a setting is not supported, or the prompt fills `max_length`.
  """
  fields.get("pad_token_id")  # by read_ids
  drawn = fields.flag("do_sample", False)
  settings: dict[str, Any] = {
    "temperature": fields.number("temperature", 1.0),
    "top_k": fields.integer("top_k", _TOP_K, least=0),
    "top_p": fields.number("top_p", 1.0),
  }
  if drawn and settings["temperature"] <= 0:
    raise fields.wrong("temperature", "above 0 with do_sample")
  for name, off in {**_OFF, **(_OFF_IF_DRAWN if drawn else {})}.items():
    if fields.get(name) is not None:
      fields.only(name, off, off)
  new, ends = _new_tokens(fields, prompt_length, positions), _end_ids(fields)[1:]
  fields.finish({**GENERATION, **({} if drawn else dict.fromkeys(_OFF_IF_DRAWN, "used only with do_sample"))})
  try:
    return GenerateConfig(max_new_tokens=new, end_ids=ends, **(settings if drawn else {}))
  except ValueError as error:
    raise InteropError(f"{fields.where}: {error}") from error


def generation_fields(folder: Path) -> Fields:
  """generation_config.json of a folder; no fields if there is none."""
  return read_json(folder / FILE) if (folder / FILE).is_file() else Fields({}, str(folder / FILE))


def _end_ids(fields: Fields) -> tuple[int, ...]:
  """Tokens that end a text: none, one or several."""
  value = fields.get("eos_token_id")
  found = value if isinstance(value, list) else [] if value is None else [value]
  if any(type(end) is not int or end < 0 for end in found):
    raise fields.wrong("eos_token_id", "the number of a token, or a list of such")
  return tuple(found)


def _new_tokens(fields: Fields, prompt_length: int, positions: int) -> int:
  longest = fields.integer("max_length", min(prompt_length + _NEW, positions))
  if "max_new_tokens" in fields:
    return fields.integer("max_new_tokens")
  if longest <= prompt_length:
    raise InteropError(
      f"{fields.where}: texts of {longest} tokens with their prompt, which alone has {prompt_length}: make a "
      "GenerateConfig, whose max_new_tokens counts new tokens alone, or shorten the prompt"
    )
  return longest - prompt_length

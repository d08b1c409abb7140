"""Mapping of transformers' Blip2ForConditionalGeneration (Li et al. 2023), whose language model is OPT or T5."""

import dataclasses
from typing import Any

from mmjax.interop import transformers_opt as opt
from mmjax.interop import transformers_t5 as t5
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, under
from mmjax.interop.transformers_blip import IMAGE_RULES
from mmjax.interop.transformers_blip2 import IGNORED, qformer_rules, read_encoders, write_encoders
from mmjax.models.blip2_captioner import Blip2CaptionerConfig

NAME = "Blip2ForConditionalGeneration"
_LANGUAGE = "language_model."


def rules(config: Blip2CaptionerConfig) -> tuple[Rule, ...]:
  """Mapping rules of Blip2ForConditionalGeneration."""
  positions = ("words/padding_position", "query_position", "words/position_embedding")
  language = (
    t5.writer_rules(config) if config.encoder_depth else joined(opt.stack_rules(), opt.position_rules(*positions))
  )
  return joined(
    under("image/", "vision_model.", IMAGE_RULES(config.image)),
    qformer_rules("qformer/"),
    linear("^language_projection", "language_projection"),
    under("", _LANGUAGE, language),
  )


def read(fields: Fields, entries: Entries) -> Blip2CaptionerConfig:
  """Read the configuration of Blip2ForConditionalGeneration. The tensors of the language model are looked at."""
  image, qformer = read_encoders(fields, text=False)
  fields.get("image_text_hidden_size")  # width of the heads for retrieval
  language, text = fields.object("text_config"), _of_language(entries)
  image_id = fields.integer("image_token_index", least=0) if "image_token_index" in fields else None
  kind = language.text("model_type", "opt")
  if kind not in ("opt", "t5"):
    raise language.wrong("model_type", "'opt' or 't5': BLIP-2 was published with these, and mmjax reads no other one")
  fields.only("use_decoder_only_language_model", kind == "opt", kind == "opt")
  if kind == "t5":
    writer = t5.read_writer(language, text)
    return Blip2CaptionerConfig(image, qformer, writer.text, writer.encoder_depth, writer.begin_id, image_id)
  words = opt.read(language, text).text
  longest = words.max_length - qformer.queries
  if longest < 1:
    raise language.wrong("max_position_embeddings", f"more than num_query_tokens, {qformer.queries}")
  begin = language.integer("bos_token_id", 2, least=0)
  return Blip2CaptionerConfig(image, qformer, dataclasses.replace(words, max_length=longest), 0, begin, image_id)


def _of_language(entries: Entries) -> Entries:
  return {name.removeprefix(_LANGUAGE): entry for name, entry in entries.items() if name.startswith(_LANGUAGE)}


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is no Blip2Captioner, or OPT or T5 lacks one of its options."""
  if not isinstance(config, Blip2CaptionerConfig):
    raise wrong_kind(NAME, "Blip2CaptionerConfig", config)
  text, decodes = config.text, not config.encoder_depth
  if decodes:
    language = opt.write_words(text, text.max_length + config.qformer.queries) | {"bos_token_id": config.begin_id}
  else:
    language = t5.write_words(text, config.encoder_depth, config.begin_id) | {"bos_token_id": text.eos_id}
  return write_encoders(config.image, config.qformer, text=False) | {
    "architectures": [NAME],
    "text_config": language,
    "use_decoder_only_language_model": decodes,
    "image_token_index": config.image_id,
  }


_FIELDS = opt.FIELDS | {"is_encoder_decoder": "the language model's own configuration decides"}
BLIP2_CAPTIONER = Architecture(NAME, read, write, rules, IGNORED, without_effect=_FIELDS)

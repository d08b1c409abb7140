"""Mapping of transformers' BLIP: for retrieval, captions and questions, and BlipModel."""

import math
from typing import Any

from mmjax.encoders import ViTConfig, bert_config
from mmjax.interop.architecture import ACTIVATIONS, Architecture, Entries, sides, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches, under
from mmjax.interop.transformers_pairs import PROJECTIONS
from mmjax.interop.transformers_parts import write_size, write_vision
from mmjax.interop.transformers_single import bert_rules
from mmjax.models.blip_transformers import BlipCaptionerConfig, BlipPairConfig, BlipQuestionConfig, BlipRetrievalConfig
from mmjax.nn.words import WordsConfig

_OURS, _THEIRS = r"transformer/block_(\d+)/", r"encoder.layers.\1."
_POSITIONS = "embeddings.position_embedding"


def _image_rules(c: ViTConfig) -> tuple[Rule, ...]:
  ours, theirs = f"{_OURS}attention", f"{_THEIRS}self_attn"
  parts = enumerate(("query", "key", "value"))
  return joined(
    *(linear(f"{ours}/{name}", f"{theirs}.qkv", part) for part, name in parts),
    linear(f"{ours}/out", f"{theirs}.projection"),
    norm(f"{_OURS}norm1", f"{_THEIRS}layer_norm1"),
    norm(f"{_OURS}norm2", f"{_THEIRS}layer_norm2"),
    linear(f"{_OURS}mlp/up", f"{_THEIRS}mlp.fc1"),
    linear(f"{_OURS}mlp/down", f"{_THEIRS}mlp.fc2"),
    norm("transformer/norm", "post_layernorm"),
    patches("stem/projection", "embeddings.patch_embedding", c.patch_size),
    (
      Rule("class_token$", "embeddings.class_embedding", "1 1 d -> 1 d"),
      Rule("class_position$", _POSITIONS, "1 n d -> n d", part=0, axis=1),
      Rule("position_embedding$", _POSITIONS, "1 n d -> n d", part=1, axis=1),
    ),
  )


IMAGE_RULES = _image_rules
"""Mapping rules of BlipVisionModel, and of Blip2VisionModel."""


def _attention(ours: str, theirs: str) -> tuple[Rule, ...]:
  return joined(
    *(linear(f"{ours}/{name}", f"{theirs}.self.{name}") for name in ("query", "key", "value")),
    linear(f"{ours}/out", f"{theirs}.output.dense"),
  )


def _text_rules(prefix: str, stack: str = "text", words: str = "words") -> tuple[Rule, ...]:
  """Rules of a text stack: BERT's layers, with cross-attention. `stack` and `words` are its names in mmjax."""
  ours, theirs = rf"^{stack}/block_(\d+)/", rf"{prefix}encoder.layer.\1."
  return joined(
    _attention(f"{ours}attention", f"{theirs}attention"),
    _attention(f"{ours}cross_attention", f"{theirs}crossattention"),
    norm(f"{ours}norm1", f"{theirs}attention.output.LayerNorm"),
    norm(f"{ours}norm_cross", f"{theirs}crossattention.output.LayerNorm"),
    norm(f"{ours}norm2", f"{theirs}output.LayerNorm"),
    linear(f"{ours}mlp/up", f"{theirs}intermediate.dense"),
    linear(f"{ours}mlp/down", f"{theirs}output.dense"),
    norm(f"^{stack}/input_norm", f"{prefix}embeddings.LayerNorm"),
    (
      Rule(f"^{words}/token_embedding$", f"{prefix}embeddings.word_embeddings.weight"),
      Rule(f"^{words}/position_embedding$", f"{prefix}embeddings.position_embeddings.weight"),
    ),
  )


def retrieval_rules(config: BlipRetrievalConfig) -> tuple[Rule, ...]:
  """Mapping rules of BlipForImageTextRetrieval."""
  return joined(
    under("image/", "vision_model.", _image_rules(config.image)),
    _text_rules("text_encoder."),
    linear("^image_projection", "vision_proj"),
    linear("^text_projection", "text_proj"),
    linear("^match_projection", "itm_head"),
  )


def captioner_rules(config: BlipCaptionerConfig | BlipQuestionConfig) -> tuple[Rule, ...]:
  """Mapping rules of BlipForConditionalGeneration."""
  head = "text_decoder.cls.predictions."
  return joined(
    under("image/", "vision_model.", _image_rules(config.image)),
    _text_rules("text_decoder.bert."),
    linear("^word_head/word_projection", f"{head}transform.dense"),
    norm("^word_head/norm", f"{head}transform.LayerNorm"),
    (Rule("^word_head/word_bias$", f"{head}bias"),),
  )


def question_rules(config: BlipQuestionConfig) -> tuple[Rule, ...]:
  """Mapping rules of BlipForQuestionAnswering: a captioner's, and those of the stack that reads the question."""
  return joined(_text_rules("text_encoder.", "question", "question_words"), captioner_rules(config))


def read_retrieval(fields: Fields, entries: Entries) -> BlipRetrievalConfig:
  """Read the configuration of BlipForImageTextRetrieval. The tensors are not needed."""
  del entries
  return BlipRetrievalConfig(
    _read_image(fields.object("vision_config")), _read_text(fields), fields.integer("image_text_hidden_size", 256)
  )


def read_captioner(fields: Fields, entries: Entries) -> BlipCaptionerConfig:
  """Read the configuration of BlipForConditionalGeneration. The tensors are not needed."""
  del entries
  return BlipCaptionerConfig(*_read_writer(fields))


def read_question(fields: Fields, entries: Entries) -> BlipQuestionConfig:
  """Read the configuration of BlipForQuestionAnswering. The tensors are not needed."""
  del entries
  image, text, begin = _read_writer(fields)
  if image.width != text.width:  # transformers gives both stacks the image's width to read
    raise fields.object("text_config").wrong("hidden_size", f"the vision tower's hidden_size, {image.width}")
  return BlipQuestionConfig(image, text, begin)


def read_image(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration of BlipVisionModel. The tensors are not needed.

  An image's vector is the class token, as BLIP reads it. Their `pooler_output` is that token normalised once more.
  """
  del entries
  return _read_image(fields)


def write_image(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single ViT."""
  if not isinstance(config, ViTConfig):
    raise wrong_kind(BLIP_IMAGE.name, "a vision transformer alone", config)
  return {"architectures": [BLIP_IMAGE.name], "model_type": "blip_vision_model"} | write_vision(config)


def _read_writer(fields: Fields) -> tuple[ViTConfig, WordsConfig, int]:
  fields.only("tie_word_embeddings", True, True)
  fields.get("image_text_hidden_size")  # width of retrieval's heads, which a writer lacks
  begin = fields.object("text_config").integer("bos_token_id", 30522, least=0)
  return _read_image(fields.object("vision_config")), _read_text(fields), begin


def _read_image(vision: Fields) -> ViTConfig:
  vision.only("num_channels", 3, 3)
  return ViTConfig(
    **_size(vision, 12),
    activation=vision.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=vision.number("layer_norm_eps", 1e-5),
    **sides(vision.square("image_size", 384), vision.square("patch_size", 16)),
    pool="cls",
    class_position=True,
  )


def _read_text(fields: Fields) -> WordsConfig:
  text = fields.object("text_config")
  text.only("is_decoder", True, True)  # otherwise there is no cross-attention
  text.only("tie_word_embeddings", True, True)
  vocab_size = text.integer("vocab_size", 30524)
  return WordsConfig(
    **_size(text, 8),
    activation=text.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=text.number("layer_norm_eps", 1e-12),
    norm="post",
    input_norm=True,
    vocab_size=vocab_size,
    max_length=text.integer("max_position_embeddings", 512),
    pad_id=text.integer("pad_token_id", 0, least=0),
    eos_id=text.integer("sep_token_id", 102, least=0),  # end token of captions
  )


def _size(part: Fields, heads: int) -> dict[str, Any]:
  return {
    "width": part.integer("hidden_size", 768),
    "mlp_dim": part.integer("intermediate_size", 3072),
    "depth": part.integer("num_hidden_layers", 12),
    "num_heads": part.integer("num_attention_heads", heads),
  }


def write_retrieval(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a BlipRetrieval."""
  if not isinstance(config, BlipRetrievalConfig):
    raise wrong_kind(BLIP_RETRIEVAL.name, "BlipRetrievalConfig", config)
  return _write(config, BLIP_RETRIEVAL.name) | {"image_text_hidden_size": config.embed_dim}


def write_captioner(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a BlipCaptioner."""
  if not isinstance(config, BlipCaptionerConfig):
    raise wrong_kind(BLIP_CAPTIONER.name, "BlipCaptionerConfig", config)
  return _write_writer(config, BLIP_CAPTIONER.name)


def write_question(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a BlipQuestion of one width."""
  if not isinstance(config, BlipQuestionConfig) or config.image.width != config.text.width:
    raise wrong_kind(BLIP_QUESTION.name, "BlipQuestionConfig with image.width equal to text.width", config)
  return _write_writer(config, BLIP_QUESTION.name)


def _write_writer(config: BlipCaptionerConfig | BlipQuestionConfig, name: str) -> dict[str, Any]:
  written = _write(config, name)
  return written | {"text_config": written["text_config"] | {"bos_token_id": config.begin_id}}


def _write(
  config: BlipRetrievalConfig | BlipCaptionerConfig | BlipQuestionConfig | BlipPairConfig, name: str
) -> dict[str, Any]:
  image, text = config.image, config.text
  words = {"vocab_size": text.vocab_size, "max_position_embeddings": text.max_length, "pad_token_id": text.pad_id}
  return {
    "architectures": [name],
    "model_type": "blip",
    "vision_config": {"model_type": "blip_vision_model", "image_size": image.image_size, "patch_size": image.patch_size}
    | write_size(image),
    "text_config": {"model_type": "blip_text_model", "encoder_hidden_size": image.width, "sep_token_id": text.eos_id}
    | {"is_decoder": True}
    | words
    | write_size(text),
  }


# Older versions also wrote the tied copy of the word embeddings, its bias, and the position ids.
_TIED = (r"cls\.predictions\.decoder\.(weight|bias)$", r"embeddings\.position_ids$")
BLIP_RETRIEVAL = Architecture("BlipForImageTextRetrieval", read_retrieval, write_retrieval, retrieval_rules, _TIED[1:])
BLIP_CAPTIONER = Architecture("BlipForConditionalGeneration", read_captioner, write_captioner, captioner_rules, _TIED)
BLIP_QUESTION = Architecture("BlipForQuestionAnswering", read_question, write_question, question_rules, _TIED)


def pair_rules(config: BlipPairConfig) -> tuple[Rule, ...]:
  """Mapping rules of BlipModel."""
  return joined(
    under("image/", "vision_model.", _image_rules(config.image)),
    under("text/", "text_model.", bert_rules(config.text)),
    PROJECTIONS,
  )


def read_pair(fields: Fields, entries: Entries) -> BlipPairConfig:
  """Read the configuration of BlipModel. The tensors are not needed: its text tower has a pooler."""
  del entries
  words = _read_text(fields)
  fields.get("image_text_hidden_size")  # width of retrieval's heads
  names = "width mlp_dim depth num_heads activation norm_epsilon vocab_size max_length pad_id eos_id"
  return BlipPairConfig(
    image=_read_image(fields.object("vision_config")),
    text=bert_config(**{name: getattr(words, name) for name in names.split()}, token_types=0),
    embed_dim=fields.integer("projection_dim", 512),
    init_logit_scale=math.exp(min(20.0, fields.number("logit_scale_init_value", 2.6592))),
    max_logit_scale=math.inf,
  )


def write_pair(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a BlipPair."""
  if not isinstance(config, BlipPairConfig):
    raise wrong_kind(BLIP_PAIR.name, "BlipPairConfig", config)
  fields = {"projection_dim": config.embed_dim, "logit_scale_init_value": math.log(config.init_logit_scale or 1.0)}
  return _write(config, BLIP_PAIR.name) | fields


def _unread(config: BlipPairConfig) -> dict[str, tuple[int, ...]]:
  """Shapes of the cross-attention of the text tower, which BlipModel has and does not use."""
  width, read, found = config.text.width, config.image.width, dict[str, tuple[int, ...]]()
  for layer in range(config.text.depth):
    prefix = f"text_model.encoder.layer.{layer}.crossattention."
    for name, inputs in (("self.query", width), ("self.key", read), ("self.value", read), ("output.dense", width)):
      found |= {f"{prefix}{name}.weight": (width, inputs), f"{prefix}{name}.bias": (width,)}
    found |= {f"{prefix}output.LayerNorm.{name}": (width,) for name in ("weight", "bias")}
  return found


BLIP_PAIR = Architecture(
  "BlipModel", read_pair, write_pair, pair_rules, (*_TIED[1:], r"\.crossattention\."), blank=_unread
)
BLIP_IMAGE = Architecture(
  "BlipVisionModel", read_image, write_image, _image_rules, _TIED[1:], ((r"^vision_model\.", ""),)
)

"""Mapping of transformers' BLIP-2 (Li et al. 2023): Blip2ForImageTextRetrieval, and Blip2VisionModel alone."""

from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import ACTIVATIONS, Architecture, Entries, sides, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, under
from mmjax.interop.transformers_blip import IMAGE_RULES
from mmjax.interop.transformers_parts import write_size, write_vision
from mmjax.interop.transformers_single import read_size
from mmjax.models.blip2 import Blip2RetrievalConfig, QFormerConfig

_OURS, _THEIRS = r"^text/block_(\d+)/", r"qformer.encoder.layer.\1."


def rules(config: Blip2RetrievalConfig) -> tuple[Rule, ...]:
  """Mapping rules of Blip2ForImageTextRetrieval."""
  return joined(
    under("image/", "vision_model.", IMAGE_RULES(config.image)),
    _attention("attention", "attention", "norm1"),
    _attention("cross_attention", "crossattention", "norm_cross"),
    *(
      joined(
        linear(f"{_OURS}{ours}mlp/up", f"{_THEIRS}intermediate{theirs}.dense"),
        linear(f"{_OURS}{ours}mlp/down", f"{_THEIRS}output{theirs}.dense"),
        norm(f"{_OURS}{ours}norm2", f"{_THEIRS}output{theirs}.LayerNorm"),
      )
      for ours, theirs in (("query_", "_query"), ("", ""))
    ),
    norm("^text/input_norm", "qformer.layernorm"),
    linear("^image_projection", "vision_projection"),
    linear("^text_projection", "text_projection"),
    linear("^match_projection", "itm_head"),
    (
      Rule("^text/query_tokens$", "query_tokens", "1 n d -> n d"),
      Rule("^text/token_embedding$", "embeddings.word_embeddings.weight"),
      Rule("^text/position_embedding$", "embeddings.position_embeddings.weight"),
    ),
  )


def _attention(ours: str, theirs: str, norm_name: str) -> tuple[Rule, ...]:
  return joined(
    *(linear(f"{_OURS}{ours}/{name}", f"{_THEIRS}{theirs}.attention.{name}") for name in ("query", "key", "value")),
    linear(f"{_OURS}{ours}/out", f"{_THEIRS}{theirs}.output.dense"),
    norm(f"{_OURS}{norm_name}", f"{_THEIRS}{theirs}.output.LayerNorm"),
  )


def read(fields: Fields, entries: Entries) -> Blip2RetrievalConfig:
  """Read the configuration of Blip2ForImageTextRetrieval. The tensors are not needed."""
  del entries
  image, text = read_image(fields.object("vision_config"), {}), fields.object("qformer_config")
  text.only("use_qformer_text_input", True, True)
  text.only("encoder_hidden_size", image.width, 1408)
  text.only("position_embedding_type", "absolute", "absolute")
  return Blip2RetrievalConfig(
    image,
    QFormerConfig(
      **read_size(text),
      activation=text.choice("hidden_act", ACTIVATIONS, "gelu"),
      norm_epsilon=text.number("layer_norm_eps", 1e-12),
      vocab_size=text.integer("vocab_size", 30522),
      max_length=text.integer("max_position_embeddings", 512),
      pad_id=text.integer("pad_token_id", 0, least=0),
      queries=fields.integer("num_query_tokens", 32),
      cross_every=text.integer("cross_attention_frequency", 2),
    ),
    fields.integer("image_text_hidden_size", 256),
  )


def read_image(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration of Blip2VisionModel. The tensors are not needed. An image's vector is its class token."""
  del entries
  fields.only("num_channels", 3, 3)
  fields.only("qkv_bias", True, True)
  defaults = dict(hidden_size=1408, intermediate_size=6144, num_hidden_layers=39, num_attention_heads=16)
  return ViTConfig(
    **read_size(fields.with_defaults(**defaults)),
    activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=fields.number("layer_norm_eps", 1e-6),
    **sides(fields.square("image_size", 224), fields.square("patch_size", 14)),
    pool="cls",
    class_position=True,
  )


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a Blip2Retrieval."""
  if not isinstance(config, Blip2RetrievalConfig):
    raise wrong_kind("Blip2ForImageTextRetrieval", "Blip2RetrievalConfig", config)
  image, text = config.image, config.text
  return {
    "architectures": ["Blip2ForImageTextRetrieval"],
    "model_type": "blip-2",
    "image_text_hidden_size": config.embed_dim,
    "num_query_tokens": text.queries,
    "vision_config": {"model_type": "blip_2_vision_model", "qkv_bias": True} | write_vision(image),
    "qformer_config": {
      "model_type": "blip_2_qformer",
      **write_size(text),
      "use_qformer_text_input": True,
      "encoder_hidden_size": image.width,
      "cross_attention_frequency": text.cross_every,
      "vocab_size": text.vocab_size,
      "max_position_embeddings": text.max_length,
      "pad_token_id": text.pad_id,
      "hidden_dropout_prob": 0.0,
      "attention_probs_dropout_prob": 0.0,
    },
  }


_UNUSED = {
  "text_config": "the model has no language model",
  "use_decoder_only_language_model": "the model has no language model",
  "image_token_index": "the model has no language model",
}
_IGNORED = (r"embeddings\.position_ids$",)
BLIP2 = Architecture("Blip2ForImageTextRetrieval", read, write, rules, _IGNORED, without_effect=_UNUSED)


def _write_image(config: Any) -> dict[str, Any]:
  if not isinstance(config, ViTConfig):
    raise wrong_kind("Blip2VisionModel", "a vision transformer alone", config)
  return {"architectures": ["Blip2VisionModel"], "model_type": "blip_2_vision_model"} | write_vision(config)


BLIP2_IMAGE = Architecture(
  "Blip2VisionModel", read_image, _write_image, IMAGE_RULES, _IGNORED, ((r"^vision_model\.", ""),)
)

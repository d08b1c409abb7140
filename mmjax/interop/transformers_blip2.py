"""Mapping of transformers' BLIP-2 (Li et al. 2023) for retrieval, and of its image tower and Q-Former."""

from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import ACTIVATIONS, Architecture, Entries, sides, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, under
from mmjax.interop.transformers_blip import IMAGE_RULES
from mmjax.interop.transformers_parts import write_size, write_vision
from mmjax.interop.transformers_single import read_size
from mmjax.models.blip2 import Blip2RetrievalConfig, QFormerConfig

_OURS, _THEIRS = r"block_(\d+)/", r"qformer.encoder.layer.\1."


def rules(config: Blip2RetrievalConfig) -> tuple[Rule, ...]:
  """Mapping rules of Blip2ForImageTextRetrieval."""
  return joined(
    under("image/", "vision_model.", IMAGE_RULES(config.image)),
    qformer_rules("text/"),
    linear("^image_projection", "vision_projection"),
    linear("^text_projection", "text_projection"),
    linear("^match_projection", "itm_head"),
    (
      Rule("^text/token_embedding$", "embeddings.word_embeddings.weight"),
      Rule("^text/position_embedding$", "embeddings.position_embeddings.weight"),
    ),
  )


def qformer_rules(prefix: str) -> tuple[Rule, ...]:
  """Mapping rules of the Q-Former under a prefix, without its word embeddings."""
  return under(
    prefix,
    "",
    joined(
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
      norm("input_norm", "qformer.layernorm"),
      (Rule("query_tokens$", "query_tokens", "1 n d -> n d"),),
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
  return Blip2RetrievalConfig(*read_encoders(fields, text=True), fields.integer("image_text_hidden_size", 256))


def read_encoders(fields: Fields, *, text: bool) -> tuple[ViTConfig, QFormerConfig]:
  """Read the configuration of the image tower and of the Q-Former. `text`: if True, the Q-Former reads texts."""
  image, part = read_image(fields.object("vision_config"), {}), fields.object("qformer_config")
  part.only("use_qformer_text_input", text, False)
  part.only("encoder_hidden_size", image.width, 1408)
  part.only("position_embedding_type", "absolute", "absolute")
  return image, QFormerConfig(
    **read_size(part),
    activation=part.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=part.number("layer_norm_eps", 1e-12),
    vocab_size=part.integer("vocab_size", 30522),
    max_length=part.integer("max_position_embeddings", 512),
    pad_id=part.integer("pad_token_id", 0, least=0),
    queries=fields.integer("num_query_tokens", 32),
    cross_every=part.integer("cross_attention_frequency", 2),
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
  fields = write_encoders(config.image, config.text, text=True)
  return fields | {"architectures": [BLIP2.name], "image_text_hidden_size": config.embed_dim}


def write_encoders(image: ViTConfig, qformer: QFormerConfig, *, text: bool) -> dict[str, Any]:
  """Fields of the image tower and of the Q-Former. `text`: if True, the Q-Former reads texts."""
  return {
    "model_type": "blip-2",
    "num_query_tokens": qformer.queries,
    "vision_config": {"model_type": "blip_2_vision_model", "qkv_bias": True} | write_vision(image),
    "qformer_config": {
      "model_type": "blip_2_qformer",
      **write_size(qformer),
      "use_qformer_text_input": text,
      "encoder_hidden_size": image.width,
      "cross_attention_frequency": qformer.cross_every,
      "vocab_size": qformer.vocab_size,
      "max_position_embeddings": qformer.max_length,
      "pad_token_id": qformer.pad_id,
      "hidden_dropout_prob": 0.0,
      "attention_probs_dropout_prob": 0.0,
    },
  }


_UNUSED = {
  "text_config": "the model has no language model",
  "use_decoder_only_language_model": "the model has no language model",
  "image_token_index": "the model has no language model",
}
IGNORED = (r"embeddings\.position_ids$",)
BLIP2 = Architecture("Blip2ForImageTextRetrieval", read, write, rules, IGNORED, without_effect=_UNUSED)


def _write_image(config: Any) -> dict[str, Any]:
  if not isinstance(config, ViTConfig):
    raise wrong_kind("Blip2VisionModel", "a vision transformer alone", config)
  return {"architectures": ["Blip2VisionModel"], "model_type": "blip_2_vision_model"} | write_vision(config)


BLIP2_IMAGE = Architecture(
  "Blip2VisionModel", read_image, _write_image, IMAGE_RULES, IGNORED, ((r"^vision_model\.", ""),)
)

"""Mapping of transformers' ViLT (Kim et al. 2021): ViltModel, and its heads for answers, matching and hidden words.

mmjax reads it at one square image size. transformers takes images of any shape.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from mmjax.encoders.bert import bert_config
from mmjax.interop.architecture import ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches
from mmjax.interop.transformers_parts import write_size
from mmjax.interop.transformers_single import encoder_layers, read_size
from mmjax.models.vilt import PatchesConfig
from mmjax.models.vilt_transformers import PublishedViltConfig

Head = Literal["none", "answers", "match", "words"]
_POSITIONS = "embeddings.position_embeddings"
_NAMES = {name: f"attention.attention.{name}" for name in ("query", "key", "value")} | {"out": "attention.output.dense"}


def _stream(config: PublishedViltConfig) -> tuple[Rule, ...]:
  """Mapping rules of ViltModel."""
  words = "embeddings.text_embeddings."
  return joined(
    encoder_layers(_NAMES, "layernorm_before", "layernorm_after"),
    norm("^stream/joint/transformer/norm", "layernorm"),
    patches("^patches/projection", "embeddings.patch_embeddings.projection", config.image.patch_size),
    norm("^word_norm", f"{words}LayerNorm"),
    (
      Rule("^image_class_token$", "embeddings.cls_token", "1 n d -> n d"),
      Rule("^image_position_embedding$", _POSITIONS, "1 n d -> n d"),
      Rule("^token_embedding$", f"{words}word_embeddings.weight"),
      Rule("^text_position_embedding$", f"{words}position_embeddings.weight"),
      Rule("^segment_embedding$", f"{words}token_type_embeddings.weight"),
      Rule("^stream/token_type_embedding$", "embeddings.token_type_embeddings.weight"),
    ),
  )


_HEADS: dict[Head, tuple[Rule, ...]] = {
  "none": (),
  "answers": joined(
    linear("^answer_up_projection", "classifier.0"),
    norm("^answer_norm", "classifier.1"),
    linear("^answer_projection", "classifier.3"),
  ),
  "match": linear("^pair_projection", "rank_output"),
  "words": joined(
    linear("^word_head/word_projection", "mlm_score.transform.dense"),
    norm("^word_head/norm", "mlm_score.transform.LayerNorm"),
    (Rule("^word_head/word_bias$", "mlm_score.decoder.bias"),),
  ),
}


def _rules(head: Head) -> Callable[[Any], tuple[Rule, ...]]:
  prefix = "" if head == "none" else "vilt."
  inner = lambda config: (dataclasses.replace(rule, theirs=prefix + rule.theirs) for rule in _stream(config))
  return lambda config: joined(inner(config), _HEADS[head])


def _read(head: Head) -> Callable[[Fields, Entries], PublishedViltConfig]:
  def read(fields: Fields, entries: Entries) -> PublishedViltConfig:
    for name, supported in (
      ("num_channels", 3),
      ("qkv_bias", True),
      ("modality_type_vocab_size", 2),
      ("max_image_length", -1),
    ):
      fields.only(name, supported, supported)
    if head == "words":
      fields.only("hidden_act", "gelu", "gelu")
      fields.only("tie_word_embeddings", True, True)
    return PublishedViltConfig(
      image=PatchesConfig(fields.square("image_size", 384), fields.square("patch_size", 32)),
      text=bert_config(
        **read_size(fields),
        norm="pre",
        activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
        norm_epsilon=fields.number("layer_norm_eps", 1e-12),
        vocab_size=fields.integer("vocab_size", 30522),
        max_length=fields.integer("max_position_embeddings", 40),
        token_types=fields.integer("type_vocab_size", 2),
        pad_id=fields.integer("pad_token_id", 0, least=0),
        tanh_pool=False,
      ),
      head=head,
      **(_answers(fields, entries) if head == "answers" else {}),
    )

  return read


def _answers(fields: Fields, entries: Entries) -> dict[str, Any]:
  """Number of answers, and their texts."""
  count, names = entries["classifier.3.weight"].shape[0], fields.get("id2label") or {}
  fields.get("label2id")  # the same texts
  if not isinstance(names, dict) or (names and set(names) != {str(n) for n in range(count)}):
    raise fields.wrong("id2label", f"an object with the texts of the {count} answers that classifier.3 has")
  return {"num_answers": count, "answers": tuple(str(names[str(n)]) for n in range(count)) if names else ()}


def _write(head: Head, name: str) -> Callable[[Any], dict[str, Any]]:
  def write(config: Any) -> dict[str, Any]:
    if not isinstance(config, PublishedViltConfig) or config.head != head:
      raise wrong_kind(name, f'a PublishedViltConfig with head="{head}"', config)
    text, answers = config.text, config.answers or [f"LABEL_{n}" for n in range(config.num_answers)]
    ids = {str(n): answer for n, answer in enumerate(answers)} if head == "answers" else {}
    named = {"id2label": ids, "label2id": {answer: int(n) for n, answer in ids.items()}} if ids else {}
    return {
      "architectures": [name],
      "model_type": "vilt",
      **write_size(text),
      "image_size": config.image.image_size,
      "patch_size": config.image.patch_size,
      "num_channels": 3,
      "qkv_bias": True,
      "max_image_length": -1,
      "modality_type_vocab_size": 2,
      "vocab_size": text.vocab_size,
      "max_position_embeddings": text.max_length,
      "type_vocab_size": text.token_types,
      "pad_token_id": text.pad_id,
      "tie_word_embeddings": head == "words",
      "hidden_dropout_prob": 0.0,
      "attention_probs_dropout_prob": 0.0,
      **named,
    }

  return write


# Tied scores may be in the file as well.
_IGNORED = (r"embeddings\.position_ids$", r"^mlm_score\.decoder\.weight$")
_RENAMED = ((r"^mlm_score\.bias$", "mlm_score.decoder.bias"),)  # transformers 4 calls it so


def _vilt(head: Head, name: str) -> Architecture:
  unused = {"num_images": "used only to compare two images"}
  return Architecture(name, _read(head), _write(head, name), _rules(head), _IGNORED, _RENAMED, without_effect=unused)


VILT = _vilt("none", "ViltModel")
VILT_ANSWERS = _vilt("answers", "ViltForQuestionAnswering")
VILT_MATCH = _vilt("match", "ViltForImageAndTextRetrieval")
VILT_WORDS = _vilt("words", "ViltForMaskedLM")

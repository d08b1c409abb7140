"""Mapping of transformers' Whisper: WhisperForConditionalGeneration and WhisperModel."""

from collections.abc import Mapping
from typing import Any

from mmjax.encoders.speech import SpeechConfig
from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm
from mmjax.models.whisper import WhisperConfig
from mmjax.nn.words import WordsConfig

_AUDIO = (r"^audio/transformer/block_(\d+)/", r"model.encoder.layers.\1.")
_TEXT = (r"^decoder/block_(\d+)/", r"model.decoder.layers.\1.")


def _attention(ours: str, theirs: str) -> tuple[Rule, ...]:
  names = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj"))
  return joined(*(linear(f"{ours}/{mine}", f"{theirs}.{yours}") for mine, yours in names))


def _block(ours: str, theirs: str) -> tuple[Rule, ...]:
  return joined(
    _attention(f"{ours}attention", f"{theirs}self_attn"),
    norm(f"{ours}norm1", f"{theirs}self_attn_layer_norm"),
    norm(f"{ours}norm2", f"{theirs}final_layer_norm"),
    linear(f"{ours}mlp/up", f"{theirs}fc1"),
    linear(f"{ours}mlp/down", f"{theirs}fc2"),
  )


def _convolution(ours: str, theirs: str) -> tuple[Rule, Rule]:
  """Rules of a convolution over three frames: weight [out, in, frame] and bias."""
  kernel = Rule(f"{ours}/kernel$", f"{theirs}.weight", "o i k -> (k i) o", (("k", 3),))
  return kernel, Rule(f"{ours}/bias$", f"{theirs}.bias")


def rules(config: WhisperConfig) -> tuple[Rule, ...]:
  """Mapping rules of WhisperForConditionalGeneration."""
  del config
  return joined(
    _convolution("^audio/conv_0", "model.encoder.conv1"),
    _convolution("^audio/conv_1", "model.encoder.conv2"),
    _block(*_AUDIO),
    norm("^audio/transformer/norm", "model.encoder.layer_norm"),
    _block(*_TEXT),
    _attention(f"{_TEXT[0]}cross_attention", f"{_TEXT[1]}encoder_attn"),
    norm(f"{_TEXT[0]}norm_cross", f"{_TEXT[1]}encoder_attn_layer_norm"),
    norm("^decoder/norm", "model.decoder.layer_norm"),
    (
      Rule("^audio/fixed_positions$", "model.encoder.embed_positions.weight"),
      Rule("^words/token_embedding$", "model.decoder.embed_tokens.weight"),
      Rule("^words/position_embedding$", "model.decoder.embed_positions.weight"),
      Rule("^words/output_embedding$", "proj_out.weight"),
    ),
  )


def read(fields: Fields, entries: Entries) -> WhisperConfig:
  """Read the configuration of Whisper. The tensors are not needed."""
  del entries
  common: dict[str, Any] = {
    "width": fields.integer("d_model", 384),
    "norm_epsilon": 1e-5,
    "attention_bias": "query_value",
  }
  common |= {"activation": fields.choice("activation_function", ACTIVATIONS, "gelu")}
  audio = SpeechConfig(
    **common,
    depth=fields.integer("encoder_layers", 4),
    num_heads=fields.integer("encoder_attention_heads", 6),
    mlp_dim=fields.integer("encoder_ffn_dim", 1536),
    mel_bins=fields.integer("num_mel_bins", 80),
    frames=2 * fields.integer("max_source_positions", 1500),
  )
  end = fields.integer("eos_token_id", 50_256, least=0)
  text = WordsConfig(
    **common,
    depth=fields.integer("decoder_layers", 4),
    num_heads=fields.integer("decoder_attention_heads", 6),
    mlp_dim=fields.integer("decoder_ffn_dim", 1536),
    vocab_size=fields.integer("vocab_size", 51_865),
    max_length=fields.integer("max_target_positions", 448),
    eos_id=end,
    pad_id=fields.integer("pad_token_id", end, least=0),
    tied=fields.flag("tie_word_embeddings", True),
  )
  begin = fields.integer("decoder_start_token_id", 50_257, least=0)
  if begin >= text.vocab_size:
    raise fields.wrong("decoder_start_token_id", f"below vocab_size, {text.vocab_size}")
  return WhisperConfig(audio, text, begin)


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not Whisper, or its two stacks differ in width."""
  if not isinstance(config, WhisperConfig):
    raise wrong_kind(WHISPER.name, "WhisperConfig", config)
  audio, text = config.audio, config.text
  if config.begin_id >= text.vocab_size:
    raise InteropError(f"begin_id is {config.begin_id}, but must be a token's id, below vocab_size={text.vocab_size}")
  for name in ("width", "activation"):
    if getattr(audio, name) != getattr(text, name):
      raise InteropError(
        f"{WHISPER.name} has one {name}, but audio.{name} is {getattr(audio, name)!r} and text.{name} is "
        f'{getattr(text, name)!r}. Use format="mmjax", which holds every model'
      )
  return {
    "architectures": [WHISPER.name],
    "model_type": "whisper",
    "d_model": audio.width,
    "activation_function": THEIR_ACTIVATIONS[audio.activation],
    "encoder_layers": audio.depth,
    "encoder_attention_heads": audio.num_heads,
    "encoder_ffn_dim": audio.hidden,
    "num_mel_bins": audio.mel_bins,
    "max_source_positions": audio.max_length,
    "decoder_layers": text.depth,
    "decoder_attention_heads": text.num_heads,
    "decoder_ffn_dim": text.hidden,
    "vocab_size": text.vocab_size,
    "max_target_positions": text.max_length,
    "tie_word_embeddings": text.tied,
    "pad_token_id": text.pad_id,
    "eos_token_id": text.eos_id,
    "bos_token_id": text.eos_id,
    "decoder_start_token_id": config.begin_id,
    "begin_suppress_tokens": None,
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0),
    **dict.fromkeys(("encoder_layerdrop", "decoder_layerdrop"), 0.0),
  }


_FIELDS: Mapping[str, str] = {
  **dict.fromkeys(("activation_dropout", "encoder_layerdrop", "decoder_layerdrop"), "used only in training"),
  **dict.fromkeys(("init_std", "apply_spec_augment"), "used only in training"),
  **{
    f"mask_{axis}_{name}": "used only in training"
    for axis in ("time", "feature")
    for name in ("prob", "length", "min_masks")
  },
  **dict.fromkeys(("scale_embedding", "num_hidden_layers"), "transformers does not read it"),
  **dict.fromkeys(("use_weighted_layer_sum", "classifier_proj_size"), "used only by a head for one task"),
  **dict.fromkeys(("median_filter_width", "alignment_heads"), "used only for times of words"),
  **dict.fromkeys(("forced_decoder_ids", "max_length"), "generation_config.json has it too"),
}
_BARE = (r"^(?=(encoder|decoder)\.)", "model.")  # files of WhisperModel
WHISPER = Architecture(
  "WhisperForConditionalGeneration", read, write, rules, (r"^proj_out\.",), (_BARE,), without_effect=_FIELDS
)

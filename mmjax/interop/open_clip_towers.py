"""Mapping of open_clip's towers (ViT, ModifiedResNet, text): tensor names and configuration fields."""

import math
from typing import Any, Literal

from mmjax.encoders import ResNetConfig, TextConfig, ViTConfig
from mmjax.interop import without_effect
from mmjax.interop.architecture import sides
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, batch_norm, convolution, joined, linear, norm, patches
from mmjax.nn.transformer import TransformerConfig


def fused(ours: str, theirs: str) -> tuple[Rule, ...]:
  """Rules of PyTorch's MultiheadAttention, which stores the query, key and value projections as one matrix."""
  parts = enumerate(("query", "key", "value"))
  return joined(
    *(
      (
        Rule(f"{ours}/{name}/kernel$", f"{theirs}.in_proj_weight", "o i -> i o", part=part),
        Rule(f"{ours}/{name}/bias$", f"{theirs}.in_proj_bias", part=part),
      )
      for part, name in parts
    ),
    linear(f"{ours}/out", f"{theirs}.out_proj"),
  )


def mlp(ours: str, theirs: str) -> tuple[Rule, ...]:
  """Rules of the two linear layers in a block's MLP."""
  return joined(linear(f"{ours}/up", f"{theirs}.c_fc"), linear(f"{ours}/down", f"{theirs}.c_proj"))


def blocks(ours: str, theirs: str) -> tuple[Rule, ...]:
  """Rules of a stack of transformer blocks."""
  ours, theirs = rf"{ours}/block_(\d+)/", rf"{theirs}.resblocks.\1."
  return joined(
    fused(f"{ours}attention", f"{theirs}attn"),
    norm(f"{ours}norm1", f"{theirs}ln_1"),
    norm(f"{ours}norm2", f"{theirs}ln_2"),
    mlp(f"{ours}mlp", f"{theirs}mlp"),
    (Rule(f"{ours}scale1/scale$", f"{theirs}ls_1.gamma"), Rule(f"{ours}scale2/scale$", f"{theirs}ls_2.gamma")),
  )


TEXT = joined(
  blocks("transformer", "transformer"),
  norm("transformer/norm", "ln_final"),
  (Rule("token_embedding$", "token_embedding.weight"), Rule("position_embedding$", "positional_embedding")),
)


_BLOCK = (r"stage_(\d)_block_(\d+)/", r"layer\1.\2.")
_RESNET = joined(
  convolution(f"{_BLOCK[0]}conv_skip", f"{_BLOCK[1]}downsample.0"),
  batch_norm(f"{_BLOCK[0]}norm_skip", f"{_BLOCK[1]}downsample.1"),
  convolution(rf"{_BLOCK[0]}conv_(\d)", rf"{_BLOCK[1]}conv\3"),
  batch_norm(rf"{_BLOCK[0]}norm_(\d)", rf"{_BLOCK[1]}bn\3"),
  convolution(r"conv_(\d)", r"conv\1"),
  batch_norm(r"norm_(\d)", r"bn\1"),
  (Rule("attention_pool/position_embedding$", "attnpool.positional_embedding"),),
  *(
    linear(f"attention_pool/{ours}", f"attnpool.{theirs}_proj")
    for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "c"))
  ),
)


def image_rules(c: ViTConfig | ResNetConfig) -> tuple[Rule, ...]:
  """Mapping rules of an image tower."""
  if isinstance(c, ResNetConfig):
    return _RESNET
  return joined(
    blocks("transformer", "transformer"),
    patches("stem/projection", "conv1", c.patch_size),
    norm("transformer/input_norm", "ln_pre"),
    _pooler(c) if c.pool == "queries" else norm("norm" if c.norm_after_pool else "transformer/norm", "ln_post"),
    (
      Rule("class_token$", "class_embedding", "d -> 1 d"),
      Rule("class_position$", "positional_embedding", part=0),
      Rule("position_embedding$", "positional_embedding", part=1),
    ),
  )


def _pooler(c: ViTConfig) -> tuple[Rule, ...]:
  """Rules of the attentional pooler.

  The last norm of the mmjax tower is open_clip's norm of the pooler's keys.
  """
  ours, theirs = "pool/attention", "attn_pool.attn"
  attention = fused(ours, theirs)
  if c.pool_width != c.width:  # then PyTorch stores three matrices, but still one bias
    apart = {f"{ours}/{name}/kernel$": f"{theirs}.{name[0]}_proj_weight" for name in ("query", "key", "value")}
    kept = tuple(rule for rule in attention if rule.ours not in apart)
    attention = kept + tuple(Rule(name, weight, "o i -> i o") for name, weight in apart.items())
  return joined(
    attention,
    (Rule("pool/probe$", "attn_pool.query"),),
    norm("transformer/norm", "attn_pool.ln_k"),
    norm("pool/query_norm", "attn_pool.ln_q"),
    norm("pool/norm", "ln_post"),
  )


# Fields of open_clip's configuration with one supported value: (field, value).
_ONLY: tuple[tuple[str, Any], ...] = tuple(
  (n, False) for n in ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
)
_ONLY += (("block_type", None),)
_SHARED = {"layers", "width", "mlp_ratio", "act_kwargs", "norm_kwargs", "ls_init_value", "output_tokens", "pool_type"}
_SHARED |= {name for name, _ in _ONLY}
_VISION = _SHARED | {"head_width", "patch_size", "image_size", "patch_dropout", "no_ln_pre", "pos_embed_type"}
_VISION |= {"attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "timm_model_name", "final_ln_after_pool"}
_VISION |= {name for name in without_effect.OPEN_CLIP_MODEL if name.startswith("timm_")}
TEXTS = _SHARED | {"context_length", "vocab_size", "heads", "no_causal_mask", "pad_id", "embed_cls", "hf_model_name"}
TEXTS |= {"eos_id", "proj_bias", "proj_type", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
TEXTS |= {name for name in without_effect.OPEN_CLIP_MODEL if name.startswith("hf_")}
_POOLS: dict[str, Literal["argmax", "eos_or_first", "first", "last"]] = {
  "argmax": "argmax",
  "eos": "eos_or_first",
  "first": "first",
  "last": "last",
}


def only_plain(part: Fields) -> None:
  """Raise InteropError for settings of a tower's blocks that mmjax does not support."""
  for name, value in _ONLY:
    part.only(name, value, value)


def read_image(vision: Fields, quick: bool, embed_dim: int) -> ViTConfig | ResNetConfig:
  """Read the configuration of the image tower from vision_cfg.

  Args:
    vision: vision_cfg.
    quick: True if the model uses QuickGELU.
    embed_dim: dimension of the embeddings.
  Returns: the configuration of a ViT or a ModifiedResNet.
  Raises: InteropError: the tower is not open_clip's own (timm), or has a setting that mmjax does not support.
  """
  if "timm_model_name" in vision:
    name = vision.values["timm_model_name"]
    raise InteropError(f"{vision.where}: timm_model_name is {name!r}; of CoCa, mmjax reads open_clip's own towers only")
  vision.known(_VISION)
  return _read_resnet(vision, embed_dim) if _is_resnet(vision) else _read_vit(vision, quick, embed_dim)


def _is_resnet(vision: Fields) -> bool:
  return isinstance(vision.values.get("layers"), list)


def _read_resnet(vision: Fields, embed_dim: int) -> ResNetConfig:
  layers = vision.values["layers"]
  if len(layers) != 4 or not all(type(n) is int and 1 <= n <= 64 for n in layers):
    raise vision.wrong("layers", "four numbers of blocks, from 1 to 64, or one number of transformer layers")
  width = vision.integer("width", 64)
  return ResNetConfig(
    image_size=vision.square("image_size", 224),
    layers=(layers[0], layers[1], layers[2], layers[3]),
    width=width,
    num_heads=width * 32 // vision.integer("head_width", 64),
    output_dim=embed_dim,
    norm="frozen",
  )


def _read_vit(vision: Fields, quick: bool, embed_dim: int) -> ViTConfig:
  only_plain(vision)
  vision.choice("pos_embed_type", {"learnable": True, "sin_cos_2d": True}, "learnable")  # a tensor in both cases
  width = vision.integer("width", 768)
  return ViTConfig(
    width=width,
    depth=vision.integer("layers", 12),
    num_heads=max(1, width // vision.integer("head_width", 64)),
    mlp_dim=int(width * vision.number("mlp_ratio", 4.0)),
    activation=_activation(vision, quick),
    norm_epsilon=_epsilon(vision),
    layer_scale=_layer_scale(vision),
    **sides(vision.square("image_size", 224), vision.square("patch_size", 16)),
    **_read_pool(vision, embed_dim),
    input_norm=not vision.flag("no_ln_pre", False),
    class_position=True,
    stem_bias=False,
  )


def _read_pool(vision: Fields, embed_dim: int) -> dict[str, Any]:
  if not vision.values.get("attentional_pool"):
    pool = vision.choice("pool_type", {"tok": "cls", "avg": "cls_mean"}, "tok")
    # The norm of one token is the same before and after it is picked.
    return {"pool": pool, "norm_after_pool": vision.flag("final_ln_after_pool", False) and pool == "cls_mean"}
  # open_clip also has "parallel" and "cascade", which it calls untested. They give embeddings of another shape.
  vision.only("attentional_pool", True, True)
  vision.only("pool_type", "tok", "tok")
  vision.only("norm_kwargs", None, None)  # these would apply to only some of the pooler's norms
  queries, heads = vision.integer("attn_pooler_queries", 256, least=2), vision.integer("attn_pooler_heads", 8)
  return {"pool": "queries", "pool_queries": queries, "pool_width": embed_dim, "pool_heads": heads}


def read_text(text: Fields, quick: bool) -> TextConfig:
  """Read the configuration of the text tower from text_cfg. `quick`: True if the model uses QuickGELU."""
  text.known(TEXTS)
  only_plain(text)
  text.only("embed_cls", False, False)
  width = text.integer("width", 512)
  return TextConfig(
    width=width,
    depth=text.integer("layers", 12),
    num_heads=text.integer("heads", 8),
    mlp_dim=int(width * text.number("mlp_ratio", 4.0)),
    activation=_activation(text, quick),
    norm_epsilon=_epsilon(text),
    layer_scale=_layer_scale(text),
    vocab_size=text.integer("vocab_size", 49408),
    max_length=text.integer("context_length", 77),
    causal=not text.flag("no_causal_mask", False),
    pool=text.choice("pool_type", _POOLS, "argmax"),
    pad_id=text.integer("pad_id", 0, least=0),
    eos_id=text.integer("eos_id", 2, least=0),
    mask_padding=False,
  )


def _activation(part: Fields, quick: bool) -> Literal["gelu", "gelu_tanh", "quick_gelu"]:
  kwargs = part.object("act_kwargs")
  kwargs.known({"approximate"})
  if quick:
    return "quick_gelu"
  return kwargs.choice("approximate", {"tanh": "gelu_tanh", "none": "gelu"}, "none")


def _epsilon(part: Fields) -> float:
  kwargs = part.object("norm_kwargs")
  kwargs.known({"eps"})
  return kwargs.number("eps", 1e-5)


def _layer_scale(part: Fields) -> float | None:
  return part.number("ls_init_value") if "ls_init_value" in part else None


def write_image(c: ViTConfig | ResNetConfig) -> dict[str, Any]:
  """Write vision_cfg. Fields that it cannot express are lost."""
  return _write_resnet(c) if isinstance(c, ResNetConfig) else _write_vit(c)


def _write_resnet(c: ResNetConfig) -> dict[str, Any]:
  head = max(1, c.features // c.num_heads)
  return {"image_size": c.image_size, "layers": list(c.layers), "width": c.width, "head_width": head}


def _write_vit(c: ViTConfig) -> dict[str, Any]:
  fields = write_blocks(c) | {
    "image_size": c.image_size,
    "patch_size": c.patch_size,
    "head_width": c.width // c.num_heads,
    "no_ln_pre": not c.input_norm,
  }
  if c.pool == "queries":
    fields.pop("norm_kwargs", None)
    pooler = {"attn_pooler_queries": c.pool_queries, "attn_pooler_heads": c.pool_heads}
    return fields | {"attentional_pool": True} | pooler
  if c.pool == "cls_mean":
    fields |= {"pool_type": "avg"} | ({"final_ln_after_pool": True} if c.norm_after_pool else {})
  return fields


def write_text(c: TextConfig) -> dict[str, Any]:
  """Write text_cfg. Fields that it cannot express are lost."""
  pools = {ours: theirs for theirs, ours in _POOLS.items()} | {"eos": "eos"}
  return write_blocks(c) | {
    "context_length": c.max_length,
    "vocab_size": c.vocab_size,
    "heads": c.num_heads,
    "pool_type": pools.get(c.pool, "argmax"),
    "pad_id": c.pad_id,
    "eos_id": c.eos_id,
    "no_causal_mask": not c.causal,
  }


def write_blocks(c: TransformerConfig) -> dict[str, Any]:
  """Write the fields that all of open_clip's transformers have."""
  ratio = c.hidden / c.width
  if int(c.width * ratio) != c.hidden:
    ratio = math.nextafter(ratio, math.inf)  # open_clip multiplies and rounds down
  fields: dict[str, Any] = {"width": c.width, "layers": c.depth, "mlp_ratio": ratio}
  if c.activation == "gelu_tanh":
    fields["act_kwargs"] = {"approximate": "tanh"}
  if c.layer_scale is not None:
    fields["ls_init_value"] = c.layer_scale
  return fields | ({} if c.norm_epsilon == 1e-5 else {"norm_kwargs": {"eps": c.norm_epsilon}})


BUFFERS = (
  r"num_batches_tracked$",
  r"attn_mask$",
  r"relative_position_index$",
  r"^(input_resolution|context_length|vocab_size)$",
)

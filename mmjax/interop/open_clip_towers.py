"""open_clip's own towers: ViT, ModifiedResNet, text."""

import math
from typing import Any, Literal

from mmjax.encoders import ResNetConfig, TextConfig, ViTConfig
from mmjax.interop.architecture import Architecture, Entries, sides, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches, under
from mmjax.models import TwoTowerConfig

_OURS, _THEIRS = r"transformer/block_(\d+)/", r"transformer.resblocks.\1."
_BLOCKS = joined(
  *(
    (
      Rule(f"{_OURS}attention/{name}/kernel$", f"{_THEIRS}attn.in_proj_weight", "o i -> i o", part=part),
      Rule(f"{_OURS}attention/{name}/bias$", f"{_THEIRS}attn.in_proj_bias", part=part),
    )
    for part, name in enumerate(("query", "key", "value"))
  ),
  linear(f"{_OURS}attention/out", f"{_THEIRS}attn.out_proj"),
  norm(f"{_OURS}norm1", f"{_THEIRS}ln_1"),
  norm(f"{_OURS}norm2", f"{_THEIRS}ln_2"),
  linear(f"{_OURS}mlp/up", f"{_THEIRS}mlp.c_fc"),
  linear(f"{_OURS}mlp/down", f"{_THEIRS}mlp.c_proj"),
)
_TEXT = joined(
  _BLOCKS,
  norm("transformer/norm", "ln_final"),
  (Rule("token_embedding$", "token_embedding.weight"), Rule("position_embedding$", "positional_embedding")),
)


def _batch_norm(ours: str, theirs: str) -> tuple[Rule, ...]:
  names = (("scale", "weight"), ("bias", "bias"), ("mean", "running_mean"), ("var", "running_var"))
  return tuple(Rule(f"{ours}/{mine}$", f"{theirs}.{yours}") for mine, yours in names)


def _convolution(ours: str, theirs: str) -> tuple[Rule, ...]:
  return (Rule(f"{ours}/kernel$", f"{theirs}.weight", "o i y x -> y x i o"),)


_BLOCK = (r"stage_(\d)_block_(\d+)/", r"layer\1.\2.")
_RESNET = joined(
  _convolution(f"{_BLOCK[0]}conv_skip", f"{_BLOCK[1]}downsample.0"),
  _batch_norm(f"{_BLOCK[0]}norm_skip", f"{_BLOCK[1]}downsample.1"),
  _convolution(rf"{_BLOCK[0]}conv_(\d)", rf"{_BLOCK[1]}conv\3"),
  _batch_norm(rf"{_BLOCK[0]}norm_(\d)", rf"{_BLOCK[1]}bn\3"),
  _convolution(r"conv_(\d)", r"conv\1"),
  _batch_norm(r"norm_(\d)", r"bn\1"),
  (Rule("attention_pool/position_embedding$", "attnpool.positional_embedding"),),
  *(
    linear(f"attention_pool/{ours}", f"attnpool.{theirs}_proj")
    for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "c"))
  ),
)


def _vit(patch_size: int) -> tuple[Rule, ...]:
  return joined(
    _BLOCKS,
    patches("stem/projection", "conv1", patch_size),
    norm("transformer/input_norm", "ln_pre"),
    norm("transformer/norm", "ln_post"),
    (
      Rule("class_token$", "class_embedding", "d -> 1 d"),
      Rule("class_position$", "positional_embedding", part=0),
      Rule("position_embedding$", "positional_embedding", part=1),
    ),
  )


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  image = _RESNET if isinstance(config.image, ResNetConfig) else _vit(config.image.patch_size)
  projection: tuple[Rule, ...] = (Rule("^text_projection/kernel$", "text_projection"),)
  if config.text_projection == "affine":
    projection = linear("^text_projection", "text_projection")
  return joined(
    under("image/", "visual.", image),
    under("text/", "", _TEXT),
    projection,
    (
      Rule("^image_projection/kernel$", "visual.proj"),
      Rule("^logit_scale$", "logit_scale"),
      Rule("^logit_bias$", "logit_bias"),
    ),
  )


# Fields of open_clip's configuration whose other values have no counterpart here: (field, the supported value).
_VISION_ONLY = (("ls_init_value", None), ("attentional_pool", False), ("final_ln_after_pool", False))
_TEXT_ONLY = (("ls_init_value", None), ("embed_cls", False), ("final_ln_after_pool", False), ("hf_model_name", None))
_BLOCK_ONLY: tuple[tuple[str, Any], ...] = tuple(
  (n, False) for n in ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner")
)
_BLOCK_ONLY += (("scale_attn", False), ("scale_fc", False), ("block_type", None))
_SHARED = {"layers", "width", "mlp_ratio", "act_kwargs", "norm_kwargs", "output_tokens", "pool_type"}
_SHARED |= {name for name, _ in (*_BLOCK_ONLY, *_VISION_ONLY)}
_VISION = _SHARED | {"head_width", "patch_size", "image_size", "patch_dropout", "no_ln_pre", "pos_embed_type"}
_VISION |= {"attn_pooler_queries", "attn_pooler_heads", "timm_model_name"}
_TEXTS = (
  _SHARED | {name for name, _ in _TEXT_ONLY} | {"context_length", "vocab_size", "heads", "no_causal_mask", "pad_id"}
)
_TEXTS |= {"eos_id", "proj_bias", "proj_type", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "init_logit_scale", "init_logit_bias", "custom_text"}
_MODEL |= {"nonscalar_logit_scale", "multimodal_cfg"}
_POOLS: dict[str, Literal["argmax", "eos_or_first", "first", "last"]] = {
  "argmax": "argmax",
  "eos": "eos_or_first",
  "first": "first",
  "last": "last",
}


def read(fields: Fields, entries: Entries) -> TwoTowerConfig:
  if "multimodal_cfg" in fields:
    raise InteropError(f"{fields.where}: multimodal_cfg makes this a CoCa, which mmjax has no model for yet")
  fields.known(_MODEL)
  fields.only("nonscalar_logit_scale", False, False)
  quick = fields.flag("quick_gelu", False)
  vision, text = fields.object("vision_cfg"), fields.object("text_cfg")
  image = _read_resnet(fields, vision) if isinstance(vision.values.get("layers"), list) else _read_vit(vision, quick)
  resnet = isinstance(image, ResNetConfig)
  return TwoTowerConfig(
    image=image,
    text=_read_text(text, quick),
    embed_dim=fields.integer("embed_dim"),
    image_projection="none" if resnet else "linear",
    text_projection=_read_projection(text),
    init_logit_scale=math.exp(min(20.0, fields.number("init_logit_scale", math.log(1 / 0.07)))),
    max_logit_scale=math.inf,
    init_logit_bias=fields.number("init_logit_bias") if "init_logit_bias" in fields else None,
  )


def _read_projection(text: Fields) -> Literal["linear", "affine", "none"]:
  if text.choice("proj_type", {"linear": False, "none": True}, "linear"):
    return "none"
  return "affine" if text.flag("proj_bias", False) else "linear"


def _read_resnet(fields: Fields, vision: Fields) -> ResNetConfig:
  vision.known(_VISION)
  layers = vision.values["layers"]
  if len(layers) != 4 or not all(type(n) is int and 1 <= n <= 1000 for n in layers):
    raise vision.wrong("layers", "four numbers of blocks, or one number of transformer layers")
  width = vision.integer("width", 64)
  return ResNetConfig(
    image_size=vision.square("image_size", 224),
    layers=(layers[0], layers[1], layers[2], layers[3]),
    width=width,
    num_heads=width * 32 // vision.integer("head_width", 64),
    output_dim=fields.integer("embed_dim"),
  )


def _read_vit(vision: Fields, quick: bool) -> ViTConfig:
  if "timm_model_name" in vision:
    name = vision.values["timm_model_name"]
    raise InteropError(f"{vision.where}: timm_model_name is {name!r}; only open_clip's own image towers are read")
  vision.known(_VISION)
  for name, value in (*_BLOCK_ONLY, *_VISION_ONLY):
    vision.only(name, value, value)
  vision.only("pool_type", "tok", "tok")
  vision.choice("pos_embed_type", {"learnable": True, "sin_cos_2d": True}, "learnable")  # kept as a tensor either way
  width = vision.integer("width", 768)
  return ViTConfig(
    width=width,
    depth=vision.integer("layers", 12),
    num_heads=max(1, width // vision.integer("head_width", 64)),
    mlp_dim=int(width * vision.number("mlp_ratio", 4.0)),
    activation=_activation(vision, quick),
    norm_epsilon=_epsilon(vision),
    **sides(vision.square("image_size", 224), vision.square("patch_size", 16)),
    pool="cls",
    input_norm=not vision.flag("no_ln_pre", False),
    class_position=True,
    stem_bias=False,
  )


def _read_text(text: Fields, quick: bool) -> TextConfig:
  text.known(_TEXTS)
  for name, value in (*_BLOCK_ONLY, *_TEXT_ONLY):
    text.only(name, value, value)
  width = text.integer("width", 512)
  return TextConfig(
    width=width,
    depth=text.integer("layers", 12),
    num_heads=text.integer("heads", 8),
    mlp_dim=int(width * text.number("mlp_ratio", 4.0)),
    activation=_activation(text, quick),
    norm_epsilon=_epsilon(text),
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


def write(config: Any) -> dict[str, Any]:
  if not isinstance(config, TwoTowerConfig):
    raise wrong_kind("open_clip's CLIP", "an image tower beside a text transformer", config)
  image, text = config.image, config.text
  quick = text.activation == "quick_gelu"
  fields: dict[str, Any] = {
    "embed_dim": config.embed_dim,
    "quick_gelu": quick,
    "vision_cfg": _write_resnet(image) if isinstance(image, ResNetConfig) else _write_vit(image),
    "text_cfg": _write_text(text) | {"proj_bias": config.text_projection == "affine"},
    "init_logit_scale": math.log(config.init_logit_scale),
  }
  if config.text_projection == "none":
    fields["text_cfg"]["proj_type"] = "none"
  if config.init_logit_bias is not None:
    fields["init_logit_bias"] = config.init_logit_bias
  return fields


def _write_resnet(c: ResNetConfig) -> dict[str, Any]:
  head = max(1, c.features // c.num_heads)
  return {"image_size": c.image_size, "layers": list(c.layers), "width": c.width, "head_width": head}


def _write_vit(c: ViTConfig) -> dict[str, Any]:
  return _write_blocks(c) | {
    "image_size": c.image_size,
    "patch_size": c.patch_size,
    "head_width": c.width // c.num_heads,
    "no_ln_pre": not c.input_norm,
  }


def _write_text(c: TextConfig) -> dict[str, Any]:
  pools = {ours: theirs for theirs, ours in _POOLS.items()} | {"eos": "eos"}
  return _write_blocks(c) | {
    "context_length": c.max_length,
    "vocab_size": c.vocab_size,
    "heads": c.num_heads,
    "pool_type": pools.get(c.pool, "argmax"),
    "pad_id": c.pad_id,
    "eos_id": c.eos_id,
    "no_causal_mask": not c.causal,
  }


def _write_blocks(c: ViTConfig | TextConfig) -> dict[str, Any]:
  ratio = c.hidden / c.width
  if int(c.width * ratio) != c.hidden:
    ratio = math.nextafter(ratio, math.inf)  # they multiply and round down
  fields: dict[str, Any] = {"width": c.width, "layers": c.depth, "mlp_ratio": ratio}
  if c.activation == "gelu_tanh":
    fields["act_kwargs"] = {"approximate": "tanh"}
  return fields | ({} if c.norm_epsilon == 1e-5 else {"norm_kwargs": {"eps": c.norm_epsilon}})


BUFFERS = (r"num_batches_tracked$", r"attn_mask$", r"^(input_resolution|context_length|vocab_size)$")
# With custom_text the text tower is a module of its own, and its names begin with "text.".
_CUSTOM_TEXT = ((r"^text\.", ""),)
OPEN_CLIP = Architecture("open_clip's CLIP", read, write, rules, BUFFERS, renamed=_CUSTOM_TEXT)

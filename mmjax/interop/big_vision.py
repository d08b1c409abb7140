"""Mapping of big_vision's .npz files: SigLIP and other two-tower models, and single ViTs.

The files have no configuration. It is derived from the tensor shapes.
"""

import math
from typing import Any, Literal

from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop.architecture import Architecture, Entries, changed_towers, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, under
from mmjax.models import TwoTowerConfig

Shapes = dict[str, tuple[int, ...]]


def _dense(ours: str, theirs: str) -> tuple[Rule, ...]:
  return Rule(f"{ours}/kernel$", f"{theirs}/kernel"), Rule(f"{ours}/bias$", f"{theirs}/bias")


def _norm(ours: str, theirs: str) -> tuple[Rule, ...]:
  return Rule(f"{ours}/scale$", f"{theirs}/scale"), Rule(f"{ours}/bias$", f"{theirs}/bias")


def _attention(ours: str, theirs: str, heads: int) -> tuple[Rule, ...]:
  sizes = (("h", heads),)
  return joined(
    *(
      (
        Rule(f"{ours}/{name}/kernel$", f"{theirs}/{name}/kernel", "i h e -> i (h e)", sizes),
        Rule(f"{ours}/{name}/bias$", f"{theirs}/{name}/bias", "h e -> (h e)", sizes),
      )
      for name in ("query", "key", "value")
    ),
    (
      Rule(f"{ours}/out/kernel$", f"{theirs}/out/kernel", "h e o -> (h e) o", sizes),
      Rule(f"{ours}/out/bias$", f"{theirs}/out/bias"),
    ),
  )


def _encoder(theirs: str, heads: int) -> tuple[Rule, ...]:
  block = rf"{theirs}/encoderblock_\1"
  ours = r"transformer/block_(\d+)"
  return joined(
    _attention(f"{ours}/attention", f"{block}/MultiHeadDotProductAttention_0", heads),
    _norm(f"{ours}/norm1", f"{block}/LayerNorm_0"),
    _norm(f"{ours}/norm2", f"{block}/LayerNorm_1"),
    _dense(f"{ours}/mlp/up", f"{block}/MlpBlock_0/Dense_0"),
    _dense(f"{ours}/mlp/down", f"{block}/MlpBlock_0/Dense_1"),
    _norm("transformer/norm", f"{theirs}/encoder_norm"),
  )


def _image(c: ViTConfig) -> tuple[Rule, ...]:
  sizes = (("p", c.patch_size), ("q", c.patch_size), ("c", 3))
  return joined(
    _encoder("Transformer", c.num_heads),
    (
      Rule("stem/projection/kernel$", "embedding/kernel", "p q c o -> (p q c) o", sizes),
      Rule("stem/projection/bias$", "embedding/bias"),
      Rule("position_embedding$", "pos_embedding", "1 n d -> n d"),
      Rule("class_token$", "cls", "1 1 d -> 1 d"),
      Rule("pool/probe$", "MAPHead_0/probe", "1 1 d -> 1 d"),
    ),
    _attention("pool/attention", "MAPHead_0/MultiHeadDotProductAttention_0", c.num_heads),
    _norm("pool/norm", "MAPHead_0/LayerNorm_0"),
    _dense("pool/mlp/up", "MAPHead_0/MlpBlock_0/Dense_0"),
    _dense("pool/mlp/down", "MAPHead_0/MlpBlock_0/Dense_1"),
  )


def vit_rules(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules of a single ViT."""
  return under("", "params/", _image(config))


def two_tower_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of a two-tower model."""
  assert isinstance(config.image, ViTConfig) and isinstance(config.text, TextConfig)
  text = joined(
    _encoder("Encoder_0", config.text.num_heads),
    (
      Rule("token_embedding$", "Embed_0/embedding"),
      Rule("position_embedding$", "pos_embedding", "1 n d -> n d"),
    ),
  )
  return joined(
    under("image/", "params/img/", _image(config.image)),
    under("text/", "params/txt/", text),
    _dense("^image_projection", "params/img/head"),
    _dense("^text_projection", "params/txt/head"),
    (Rule("^logit_scale$", "params/t", "1 ->"), Rule("^logit_bias$", "params/b", "1 ->")),
  )


def read(fields: Fields, entries: Entries) -> TwoTowerConfig | ViTConfig:
  """Derive the configuration from the tensor shapes.

  Fields that the shapes do not determine have SigLIP's values: tanh-GELU, epsilon 1e-6, and for a text, pooling at the
  last position.
  """
  shapes: Shapes = {name: entry.shape for name, entry in entries.items()}
  if "params/embedding/kernel" in shapes:
    return _read_vit(shapes, "params/")
  image = _read_vit(shapes, "params/img/")
  width = shapes["params/txt/Embed_0/embedding"][1]
  head = shapes.get("params/txt/head/kernel")
  image_head = shapes.get("params/img/head/kernel")
  return TwoTowerConfig(
    image=image,
    text=TextConfig(
      **_read_encoder(shapes, "params/txt/Encoder_0/"),
      activation="gelu_tanh",
      norm_epsilon=1e-6,
      vocab_size=shapes["params/txt/Embed_0/embedding"][0],
      max_length=shapes["params/txt/pos_embedding"][1],
      causal=False,
      pool="last",
      mask_padding=False,
    ),
    embed_dim=head[1] if head else width,
    text_projection="affine" if head else "none",
    image_projection="affine" if image_head else "none",
    init_logit_scale=10.0,
    max_logit_scale=math.inf,
    init_logit_bias=-10.0 if "params/b" in shapes else None,
  )


def _read_vit(shapes: Shapes, prefix: str) -> ViTConfig:
  if f"{prefix}pre_logits/kernel" in shapes:
    raise InteropError("mmjax has no ViT with a pre_logits layer (rep_size)")
  patch = shapes[f"{prefix}embedding/kernel"][0]
  pool: Literal["cls", "map", "mean"] = "mean"
  if f"{prefix}MAPHead_0/probe" in shapes:
    pool = "map"
  elif f"{prefix}cls" in shapes:
    pool = "cls"
  return ViTConfig(
    **_read_encoder(shapes, f"{prefix}Transformer/"),
    activation="gelu_tanh",
    norm_epsilon=1e-6,
    image_size=patch * math.isqrt(shapes[f"{prefix}pos_embedding"][1]),
    patch_size=patch,
    pool=pool,
  )


def _read_encoder(shapes: Shapes, prefix: str) -> dict[str, Any]:
  block = f"{prefix}encoderblock_0"
  width, heads, _ = shapes[f"{block}/MultiHeadDotProductAttention_0/query/kernel"]
  depth = len({n.removeprefix(prefix).split("/")[0] for n in shapes if n.startswith(f"{prefix}encoderblock_")})
  hidden = shapes[f"{block}/MlpBlock_0/Dense_0/kernel"][1]
  return {"width": width, "depth": depth, "num_heads": heads, "mlp_dim": hidden}


def write(config: Any) -> dict[str, Any]:
  """Return an empty dictionary, because big_vision's files have no configuration.

  Raises: InteropError: the model is neither a ViT nor a two-tower model.
  """
  known = "a vision transformer, alone or beside a text transformer"
  if isinstance(config, TwoTowerConfig):
    for tower, kind in ((config.image, ViTConfig), (config.text, TextConfig)):
      if not isinstance(tower, kind):
        raise wrong_kind("big_vision", known, tower)
  elif not isinstance(config, ViTConfig):
    raise wrong_kind("big_vision", known, config)
  return {}


def rules(config: Any) -> tuple[Rule, ...]:
  """Mapping rules of a model."""
  return vit_rules(config) if isinstance(config, ViTConfig) else two_tower_rules(config)


# The classifier head of a single ViT and the optimiser state are not read.
BIG_VISION = Architecture(
  "big_vision",
  read,
  write,
  rules,
  (r"^params/head/", r"^opt/"),
  renamed=((r"^(?!params/|opt/)", "params/"),),
  nearest=lambda config: changed_towers(config, dict(stem="patch", class_position=False)),
)

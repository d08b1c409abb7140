"""Descriptions of external architectures, and the check that an mmjax model can be written as one."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from mmjax.encoders import (
  ClassicResNetConfig,
  ConvNeXtConfig,
  EfficientNetConfig,
  FastViTConfig,
  HtsatConfig,
  NaFlexConfig,
  ResNetConfig,
  SwinConfig,
  TextConfig,
)
from mmjax.encoders.vit import ViTConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule
from mmjax.interop.resample import Resampling
from mmjax.interop.shapes import ModelConfig
from mmjax.interop.tensors import Entry
from mmjax.models.classifier import ClassifierConfig
from mmjax.models.config import towers, with_towers
from mmjax.models.ensemble import EnsembleConfig
from mmjax.nn.transformer import TransformerConfig
from mmjax.nn.words import WordsConfig

Entries = Mapping[str, Entry]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"]
ACTIVATIONS: Mapping[str, Activation] = {
  "gelu": "gelu",
  "quick_gelu": "quick_gelu",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_new": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "silu": "silu",
  "swish": "silu",
  "relu": "relu",
}
THEIR_ACTIVATIONS = {name: name for name in ("gelu", "quick_gelu", "silu", "relu")} | {"gelu_tanh": "gelu_pytorch_tanh"}


def _nothing(config: Any) -> Mapping[str, tuple[int, ...]]:
  del config
  return {}


@dataclasses.dataclass(frozen=True)
class Architecture:
  """One architecture in one external format.

  Attributes:
    name: name in the other library.
    read: makes the mmjax configuration from the external configuration and the tensors' headers.
    write: makes the external configuration from the mmjax one. Fields that the external one cannot express are lost
      without an error. `check_writable` finds them.
    rules: makes the mapping of parameters to tensors for a configuration.
    ignored: regular expressions of tensors that are not read, such as buffers.
    renamed: (regular expression, replacement) pairs, applied to the tensor names of a file before the mapping.
    nearest: changes a configuration to one whose tensors this architecture has, to name what it cannot hold. None: any
      configuration can be read back.
    without_effect: fields of config.json that have no effect in this architecture, and the reason of each.
    blank: shapes of external tensors that no result depends on, by name. They are written as zeros.
    resampling: filter with which the other library resamples the positions of an image.
  """

  name: str
  read: Callable[[Fields, Entries], ModelConfig]
  write: Callable[[Any], dict[str, Any]]
  rules: Callable[[Any], tuple[Rule, ...]]
  ignored: tuple[str, ...] = ()
  renamed: tuple[tuple[str, str], ...] = ()
  nearest: Callable[[Any], Any] | None = None
  without_effect: Mapping[str, str] = dataclasses.field(default_factory=dict)
  blank: Callable[[Any], Mapping[str, tuple[int, ...]]] = _nothing
  resampling: Resampling = "bicubic"


def check_writable(ours: ModelConfig, back: ModelConfig, name: str) -> None:
  """Check that an external format keeps every field of a configuration.

  Args:
    ours: configuration of the model.
    back: configuration read back from the external one that was written for `ours`.
    name: name of the architecture, for the error message.
  Raises: InteropError: fields differ. The message names all of them.
  """
  lost = list(_lost(ours, back))
  if lost:
    said = "; ".join(
      f"{path} is {mine!r}{_meaning(path)}, but {name} has only {theirs!r}" for path, mine, theirs in lost
    )
    options = " ".join(_option(path, theirs) for path, _, theirs in lost)
    raise InteropError(
      f'{name} cannot hold this model: {said}. A model trained with these settings fits: {options}. Use format="mmjax" '
      "(--to mmjax), which holds every model"
    )


# Words of the other libraries for settings of mmjax.
_MEANINGS = {
  "input_norm": "pre_layrnorm, ln_pre",
  "pool": "the pooled token",
  "stem": "patch_embedding, conv1",
  "stem_bias": "patch_embedding.bias",
  "class_position": "position_embedding of the class token",
  "causal": "the causal attention mask",
  "mask_padding": "the attention mask of padding",
  "activation": "hidden_act",
  "norm_epsilon": "layer_norm_eps",
  "embed_dim": "projection_dim",
  "image_projection": "visual_projection, visual.proj",
  "text_projection": "text_projection",
  "init_logit_bias": "logit_bias",
  "qk_norm": "norms of queries and keys",
  "norm": "post-norm blocks",
  "positions": "position_embedding",
  "tanh_pool": "pooler",
  "token_types": "token_type_embeddings",
  "registers": "register_tokens, distillation_token",
}
_FOLLOWS = {"eos_id": "pool", "pad_id": "mask_padding"}
"""Settings that matter only with a value of another one, which is then named alone."""


def _lost(ours: Any, back: Any) -> Iterator[tuple[str, Any, Any]]:
  """Settings that a format cannot hold, with their own values."""
  raw = {path: (mine, theirs) for path, mine, theirs in differences(ours, back, "model")}
  found = list(differences(canonical(ours), canonical(back), "model"))
  names = {path for path, _, _ in found}
  for path, mine, theirs in found:
    parent, _, name = path.rpartition(".")
    if f"{parent}.{_FOLLOWS.get(name)}" not in names:
      yield path, *raw.get(path, (mine, theirs))


def _meaning(path: str) -> str:
  words = _MEANINGS.get(path.rpartition(".")[2])
  return f" ({words})" if words else ""


def _option(path: str, value: Any) -> str:
  parent, dot, name = path.replace("_", "-").rpartition(".")
  if isinstance(value, bool):
    return f"--{parent}{dot}{'' if value else 'no-'}{name}"
  return f"--{parent}{dot}{name} {value}"


# Initial values and limits of the scale and the bias. `save` writes the clipped scale and bias as parameters, so these
# fields change no embedding.
_START = {"init_logit_scale": 1.0, "max_logit_scale": math.inf, "init_logit_bias": 0.0, "max_logit_bias": math.inf}


def canonical(config: Any) -> Any:
  """Set every field that changes no embedding to a fixed value.

  Two configurations that are equal afterwards compute the same embeddings.
  """
  if isinstance(config, EnsembleConfig):  # only mmjax's own format holds it, with all fields
    return config
  if not isinstance(
    config,
    TransformerConfig
    | ResNetConfig
    | ClassicResNetConfig
    | ConvNeXtConfig
    | EfficientNetConfig
    | FastViTConfig
    | SwinConfig
    | HtsatConfig,
  ):
    unlearned: dict[str, Any] = {n: value for n, value in _START.items() if getattr(config, n, None) is not None}
    changed = {name: canonical(tower) for name, tower in towers(config).items()}
    own = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    unlearned |= {n: canonical(part) for n, part in own.items() if isinstance(part, TransformerConfig)}
    if isinstance(config, ClassifierConfig):
      unlearned = {"classes": (), "label": "label"}  # names
    return dataclasses.replace(with_towers(config, changed), **unlearned)
  if isinstance(config, TransformerConfig):
    defaults = TransformerConfig()
    same = {n: getattr(defaults, n) for n in (*_ONLY_TRAINING, "dropout", "attention_dropout", "scan")}
    scale = None if config.layer_scale is None else 1.0  # an initial value
    far = config.relative_distance if config.relative_buckets else 128
    head = None if config.attention_width == config.width else config.head_dim
    config = dataclasses.replace(
      config, mlp_dim=config.hidden, layer_scale=scale, relative_distance=far, head_dim=head, **same
    )
  if isinstance(config, ViTConfig):
    remainder = config.drop_remainder and config.image_size % config.patch_size != 0
    config = dataclasses.replace(config, patch_dropout=0.0, drop_remainder=remainder)
    if isinstance(config, NaFlexConfig):
      config = dataclasses.replace(config, patches=config.grid**2)  # padding changes nothing
    if config.pool != "queries":
      config = dataclasses.replace(config, pool_queries=256, pool_width=512, pool_heads=8)
    if config.stem != "mobileclip" or config.stem_norm == "batch":
      config = dataclasses.replace(config, stem_norm="frozen" if config.stem == "mobileclip" else "group")
    if config.stem != "mbconv":
      config = dataclasses.replace(config, stem_width=64)
    if config.positions != "offsets":
      config = dataclasses.replace(config, offset_width=256)
    return _canonical_rotary(_canonical_map(config))
  if isinstance(config, ResNetConfig | ClassicResNetConfig):
    norm = "frozen" if config.norm == "batch" else config.norm  # equal in evaluation
    return dataclasses.replace(config, norm=norm, dtype="float32")
  if isinstance(config, FastViTConfig | EfficientNetConfig):
    norm = "frozen" if config.norm == "batch" else config.norm
    return dataclasses.replace(config, norm=norm, drop_path=0.0, dtype="float32")
  if isinstance(config, ConvNeXtConfig):
    initial = None if config.layer_scale is None else 1.0
    pool = config.norm_epsilon if config.pool_epsilon is None else config.pool_epsilon
    same = dict(drop_path=0.0, remat="none", dtype="float32")
    return dataclasses.replace(config, layer_scale=initial, pool_epsilon=pool, **same)
  if isinstance(config, SwinConfig):
    return dataclasses.replace(config, **{name: getattr(SwinConfig, name) for name in _ONLY_TRAINING})
  if isinstance(config, HtsatConfig):
    norm = "frozen" if config.norm == "batch" else config.norm
    return dataclasses.replace(config, swin=canonical(config.swin), norm=norm)
  if isinstance(config, WordsConfig):
    return _canonical_words(config)
  return _canonical_text(config) if isinstance(config, TextConfig) else config


def square_alike(back: Any, ours: Any) -> Any:
  """Change a configuration whose image tower takes images of any shape to one for squares, if that of `ours` does.

  The parameters are the same, and so are the embeddings of square images of image_size. The other way round, those of
  other images would be lost.
  """
  theirs = back if isinstance(back, NaFlexConfig) else towers(back).get("image")
  mine = ours if isinstance(ours, ViTConfig) else towers(ours).get("image")
  if not isinstance(theirs, NaFlexConfig) or type(mine) is not ViTConfig:
    return back
  square = ViTConfig(**{field.name: getattr(theirs, field.name) for field in dataclasses.fields(ViTConfig)})
  return square if back is theirs else with_towers(back, {"image": square})


_ONLY_TRAINING = ("drop_path", "remat", "dtype", "attention", "init_scheme")


def _canonical_map(config: ViTConfig) -> ViTConfig:
  mapped = config.pool in ("map", "cls_map")
  heads, hidden = config.map_heads or config.num_heads, config.map_mlp_dim or config.hidden
  return dataclasses.replace(config, map_heads=heads if mapped else None, map_mlp_dim=hidden if mapped else None)


def _canonical_rotary(config: ViTConfig) -> ViTConfig:
  if config.rotary == "patches":
    return dataclasses.replace(config, rotary_grid=config.rotary_grid or config.grid)
  config = dataclasses.replace(config, rotary_grid=None, rotary_start=0.0)
  return config if config.rotary != "none" else dataclasses.replace(config, rotary_temperature=100.0, rotary_axes="yx")


def _canonical_words(config: WordsConfig) -> WordsConfig:
  if config.key_heads == config.num_heads:
    config = dataclasses.replace(config, key_heads=None)
  return config if config.positions == "rotary" else dataclasses.replace(config, rotary_temperature=10_000.0)


def _canonical_text(config: TextConfig) -> TextConfig:
  config = dataclasses.replace(config, mask_id=-1, special_ids=())  # only masked-word objectives use them
  if config.causal and config.pool == "eos":
    # A text is its tokens, the end token, then padding. The causal end token attends to no padding.
    config = dataclasses.replace(config, pool="eos_or_first", mask_padding=False)
  if not config.mask_padding:
    config = dataclasses.replace(config, pad_id=0)
  return config if config.pool.startswith("eos") else dataclasses.replace(config, eos_id=0)


def differences(mine: Any, theirs: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
  """Find the fields in which two configurations differ: (path, value in `mine`, value in `theirs`)."""
  if type(mine) is not type(theirs):
    yield path, type(mine).__name__, type(theirs).__name__
    return
  for field in dataclasses.fields(mine):
    a, b = getattr(mine, field.name), getattr(theirs, field.name)
    if dataclasses.is_dataclass(a):
      yield from differences(a, b, f"{path}.{field.name}")
    elif isinstance(a, Mapping) and isinstance(b, Mapping) and a.keys() == b.keys() and _nested(a, b):
      for name in a:
        yield from differences(a[name], b[name], f"{path}.{field.name}.{name}")
    elif a != b:
      yield f"{path}.{field.name}", a, b


def _nested(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
  """True for two mappings of names to configurations."""
  return all(dataclasses.is_dataclass(value) for value in (*a.values(), *b.values()))


def changed_towers(config: Any, image: Mapping[str, Any], **fields: Any) -> Any:
  """Change fields of a two-tower model and of its image tower, if they are a ViT's; for `Architecture.nearest`.

  Another model is returned unchanged.
  """
  if not isinstance(getattr(config, "image", None), ViTConfig) or not hasattr(config, "image_projection"):
    return config
  return dataclasses.replace(config, image=dataclasses.replace(config.image, **image), **fields)


def sides(image_size: int, patch_size: int) -> dict[str, Any]:
  """Size fields of a ViTConfig whose patch embedding, a strided convolution, drops pixels that fill no whole patch."""
  return {"image_size": image_size, "patch_size": patch_size, "drop_remainder": image_size % patch_size != 0}


def wrong_kind(name: str, wanted: str, config: Any) -> InteropError:
  """Error for a configuration of a type that the architecture cannot represent."""
  return InteropError(
    f'{name} supports only {wanted}, not {type(config).__name__}. Use format="mmjax", which holds every model'
  )

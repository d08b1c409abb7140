"""What it takes to know an architecture of another project, and the test of whether a model of ours is one."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from mmjax.encoders import ResNetConfig, TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule
from mmjax.interop.shapes import ModelConfig
from mmjax.interop.tensors import Entry
from mmjax.nn.transformer import TransformerConfig

Entries = Mapping[str, Entry]

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
ACTIVATIONS: Mapping[str, Activation] = {
  "gelu": "gelu",
  "quick_gelu": "quick_gelu",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_new": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
}
THEIR_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}


@dataclasses.dataclass(frozen=True)
class Architecture:
  """One architecture as one project keeps it.

  Attributes:
    name: what they call it.
    read: their configuration and the tensors of a file to our configuration.
    write: our configuration to theirs, as far as theirs can say it; `check_writable` finds what got lost.
    rules: the table of names for a configuration.
    ignored: expressions of tensors that hold no weights.
    renamed: pairs of an expression and what takes its place in a name.
  """

  name: str
  read: Callable[[Fields, Entries], ModelConfig]
  write: Callable[[Any], dict[str, Any]]
  rules: Callable[[Any], tuple[Rule, ...]]
  ignored: tuple[str, ...] = ()
  renamed: tuple[tuple[str, str], ...] = ()


def check_writable(ours: ModelConfig, back: ModelConfig, name: str) -> None:
  """Raises InteropError for fields of `ours` that their configuration could not say (`back` is what came back)."""
  lost = list(_differences(canonical(ours), canonical(back), "model"))
  if lost:
    wanted = "; ".join(f"{path} is {mine!r}, and {name} has only {theirs!r}" for path, mine, theirs in lost)
    raise InteropError(f'{name} cannot hold this model: {wanted}. format="mmjax" holds every model')


# How a scale and a bias begin, and where they are clipped: what acts is in the parameters.
_START = {"init_logit_scale": 1.0, "max_logit_scale": math.inf, "init_logit_bias": 0.0, "max_logit_bias": math.inf}


def canonical(config: Any) -> Any:
  """The configuration without what changes no embedding, so that equal ones compute the same."""
  if not isinstance(config, TransformerConfig | ResNetConfig):
    towers = {name: canonical(getattr(config, name)) for name in ("image", "text") if hasattr(config, name)}
    unlearned = {name: value for name, value in _START.items() if getattr(config, name, None) is not None}
    return dataclasses.replace(config, **towers, **unlearned)
  if isinstance(config, TransformerConfig):
    defaults = TransformerConfig()
    same = {n: getattr(defaults, n) for n in ("drop_path", "scan", "remat", "dtype", "attention")}
    config = dataclasses.replace(config, mlp_dim=config.hidden, **same)
  if isinstance(config, ViTConfig):
    remainder = config.drop_remainder and config.image_size % config.patch_size != 0
    config = dataclasses.replace(config, patch_dropout=0.0, drop_remainder=remainder)
    if config.pool != "queries":
      config = dataclasses.replace(config, pool_queries=256, pool_width=512, pool_heads=8)
    return config
  return _canonical_text(config) if isinstance(config, TextConfig) else config


def _canonical_text(config: TextConfig) -> TextConfig:
  config = dataclasses.replace(config, mask_id=-1, special_ids=())  # which words an objective may hide
  if config.causal and config.pool == "eos":
    # A text that ends in its end token and then padding: what is read there has only that text before it.
    config = dataclasses.replace(config, pool="eos_or_first", mask_padding=False)
  if not config.mask_padding:
    config = dataclasses.replace(config, pad_id=0)
  return config if config.pool.startswith("eos") else dataclasses.replace(config, eos_id=0)


def _differences(mine: Any, theirs: Any, path: str) -> Any:
  if type(mine) is not type(theirs):
    yield path, type(mine).__name__, type(theirs).__name__
    return
  for field in dataclasses.fields(mine):
    a, b = getattr(mine, field.name), getattr(theirs, field.name)
    if dataclasses.is_dataclass(a):
      yield from _differences(a, b, f"{path}.{field.name}")
    elif a != b:
      yield f"{path}.{field.name}", a, b


def sides(image_size: int, patch_size: int) -> dict[str, Any]:
  """Sizes of a vision transformer whose strided convolution drops the pixels that fill no patch."""
  return {"image_size": image_size, "patch_size": patch_size, "drop_remainder": image_size % patch_size != 0}


def wrong_kind(name: str, wanted: str, config: Any) -> InteropError:
  """The error for a model that is not of an architecture's kind at all."""
  return InteropError(
    f'{name} is {wanted}, and this model is {type(config).__name__}; format="mmjax" holds every model'
  )

"""mmjax's own format: every model, its parameters under their own paths, its configuration as JSON."""

import typing
from typing import Any

import cattrs
from cattrs.errors import BaseValidationError
from cattrs.v import transform_error

from mmjax.encoders import ResNetConfig, ViTConfig
from mmjax.interop.architecture import Architecture, Entries
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule
from mmjax.interop.shapes import ModelConfig

KINDS: dict[str, type] = {kind.__name__: kind for kind in typing.get_args(ModelConfig)}
_converter = cattrs.Converter(forbid_extra_keys=True)
_converter.register_structure_hook_func(
  lambda kind: kind == ViTConfig | ResNetConfig,
  lambda fields, _: _converter.structure(fields, ResNetConfig if "layers" in fields else ViTConfig),
)


def read(fields: Fields, entries: Entries) -> ModelConfig:
  del entries
  kind = fields.choice("mmjax_model", KINDS)
  try:
    return _converter.structure(dict(fields.object("config").values), kind)
  except (BaseValidationError, ValueError, TypeError) as error:
    raise InteropError(f"{fields.where}: " + "; ".join(transform_error(error, path="config"))) from error


def write(config: Any) -> dict[str, Any]:
  return {"mmjax_model": type(config).__name__, "config": _converter.unstructure(config)}


NATIVE = Architecture("mmjax", read, write, lambda config: (Rule("^(.*)$", r"\1"),))

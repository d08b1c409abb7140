"""mmjax's own format, which holds every model: parameters under their own paths, and the configuration as JSON."""

from typing import Any

from cattrs.errors import BaseValidationError
from cattrs.v import transform_error

from mmjax.catalogue import KINDS
from mmjax.configs import converter, to_json
from mmjax.encoders.config import TowerConfig
from mmjax.interop.architecture import Architecture, Entries
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule
from mmjax.interop.shapes import ModelConfig
from mmjax.kinds import TAG, of_base
from mmjax.models.config import ModelConfig as SystemConfig
from mmjax.models.config import towers
from mmjax.models.ensemble import EnsembleConfig
from mmjax.upgrade import upgraded_model

MODELS: dict[str, type] = {kind.__name__: kind for base in (SystemConfig, TowerConfig) for kind in of_base(base, KINDS)}


def read(fields: Fields, entries: Entries) -> ModelConfig:
  """Read the model's configuration. The tensors are not needed."""
  del entries
  kind = fields.choice("mmjax_model", MODELS)
  config = upgraded_model({TAG: kind.__name__, **fields.object("config").values})
  del config[TAG]
  try:
    return converter(KINDS).structure(config, kind)
  except (BaseValidationError, ValueError, TypeError) as error:
    raise InteropError(f"{fields.where}: " + "; ".join(transform_error(error, path="config"))) from error


def write(config: Any) -> dict[str, Any]:
  """Write the type and the fields of the model's configuration.

  Raises: InteropError: the members of an ensemble have blocks that are stacked in one array.
  """
  if isinstance(config, EnsembleConfig) and any(
    getattr(tower, "scan", False) for model in config.models for tower in towers(model).values()
  ):
    raise InteropError(
      "the members of this ensemble have towers with scan=True, whose stacked blocks are not exported together: export "
      "the members one by one"
    )
  return {"mmjax_model": type(config).__name__, "config": to_json(config)}


NATIVE = Architecture("mmjax", read, write, lambda config: (Rule("^(.*)$", r"\1"),))

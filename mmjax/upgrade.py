"""Conversion of configurations that older versions of mmjax wrote."""

from typing import Any

from mmjax.kinds import TAG


def upgraded(fields: Any) -> Any:
  """Convert the JSON of an experiment to the form of this version. Fields that need no conversion are unchanged."""
  if not isinstance(fields, dict):
    return fields
  new = dict(fields)
  if isinstance(new.get("model"), dict):
    new["model"] = upgraded_model(_tagged(new["model"], "system", "TwoTowerConfig"))
  if isinstance(new.get("objectives"), list):
    new["objectives"] = [_term(term) for term in new["objectives"]]
  return new


def upgraded_model(fields: dict[str, Any]) -> dict[str, Any]:
  """Convert the JSON of a model: add the classes of the towers to a two-tower model."""
  if fields.get(TAG) != "TwoTowerConfig" or not isinstance(fields.get("image"), dict):
    return fields
  image = fields["image"]
  kind = "ResNetConfig" if "layers" in image else "ViTConfig"
  return fields | {
    name: {TAG: default, **tower}
    for name, default in (("image", kind), ("text", "TextConfig"))
    if isinstance(tower := fields.get(name), dict)
  }


def _term(fields: Any) -> Any:
  if not isinstance(fields, dict):
    return fields
  new = _tagged(fields, "term", "Contrastive")
  if isinstance(new.get("loss"), str):  # losses had no settings: they were stored by their names on the command line
    new["loss"] = {TAG: new["loss"]}
  return new


def _tagged(fields: dict[str, Any], old: str, default: str) -> dict[str, Any]:
  """Store the class under the key of this version. Older versions omitted the default class."""
  if TAG in fields:
    return fields
  return {TAG: fields.get(old, default), **{name: value for name, value in fields.items() if name != old}}

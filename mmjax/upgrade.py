"""Configurations that older versions wrote, in the form of this one."""

from typing import Any

from mmjax.kinds import TAG


def upgraded(fields: Any) -> Any:
  """The JSON of an experiment in today's form. What is not as older versions wrote it is left as it is."""
  if not isinstance(fields, dict):
    return fields
  new = dict(fields)
  if isinstance(new.get("model"), dict):
    new["model"] = upgraded_model(_tagged(new["model"], "system", "TwoTowerConfig"))
  if isinstance(new.get("objectives"), list):
    new["objectives"] = [_term(term) for term in new["objectives"]]
  return new


def upgraded_model(fields: dict[str, Any]) -> dict[str, Any]:
  """The JSON of a model: of two towers, which tower each is."""
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
  if isinstance(new.get("loss"), str):  # losses had no settings, and were named as they are on the command line
    new["loss"] = {TAG: new["loss"]}
  return new


def _tagged(fields: dict[str, Any], old: str, default: str) -> dict[str, Any]:
  """The class under its key of today; older versions left it out where it was the default."""
  if TAG in fields:
    return fields
  return {TAG: fields.get(old, default), **{name: value for name, value in fields.items() if name != old}}

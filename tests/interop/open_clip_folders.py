"""Folders that open_clip wrote, with random weights."""

import json
from pathlib import Path
from typing import Any

from tests.interop.references import randomize


def written(folder: Path, cfg: dict[str, Any], *, embed_dim: int = 10) -> tuple[Any, Any]:
  """A random model of theirs in a local directory, opened by their own factory; and its transform of images."""
  import open_clip
  from safetensors.torch import save_file

  folder.mkdir()
  cfg = json.loads(json.dumps(cfg | dict(embed_dim=embed_dim)))
  preprocess = dict(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], interpolation="bilinear", resize_mode="squash")
  (folder / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=cfg, preprocess_cfg=preprocess)))
  model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
  randomize(model)
  save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
  model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
  return model.eval(), transform

"""CLIP ViT-B/16 (Radford et al. 2021, table 20): clip_b32.py with patches half as wide, four times as many
tokens.

The paper reports 68.6% zero-shot on ImageNet (table 11). Everything else is as in clip_b32.py, also what
cannot be run here.
"""

import dataclasses
from pathlib import Path

from clip_b32 import EXPERIMENT as B32

from mmjax.cli import main

EXPERIMENT = dataclasses.replace(
  B32,
  model=dataclasses.replace(B32.model, image=dataclasses.replace(B32.model.image, patch_size=16)),
  run=dataclasses.replace(B32.run, workdir=Path("runs/clip_b16")),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

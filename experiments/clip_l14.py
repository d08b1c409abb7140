"""CLIP ViT-L/14 (Radford et al. 2021, table 20): 428 million parameters, learning rate 4e-4.

The paper reports 75.3% zero-shot on ImageNet (76.2% after an epoch at 336 pixels, table 11); it took 256
V100s twelve days. Everything else is as in clip_b32.py, also what cannot be run here. By `plan`, a v5e:16x16 reaches
55.8% of its peak with it (12.7 of 15.75 GiB), compiled in two and a half minutes on two cores.
"""

import dataclasses
from pathlib import Path

from clip_b32 import EXPERIMENT as B32

from mmjax.cli import main
from mmjax.encoders import vit_size

EXPERIMENT = dataclasses.replace(
  B32,
  model=dataclasses.replace(
    B32.model,
    image=dataclasses.replace(B32.model.image, **vit_size("L"), patch_size=14, scan=True, remat="hidden"),
    text=dataclasses.replace(B32.model.text, width=768, num_heads=12, scan=True, remat="hidden"),
    embed_dim=768,
  ),
  optimizer=dataclasses.replace(B32.optimizer, learning_rate=4e-4),
  run=dataclasses.replace(B32.run, workdir=Path("runs/clip_l14")),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

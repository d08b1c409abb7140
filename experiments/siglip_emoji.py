"""SigLIP on emoji: the main job of clip_emoji.py with the pairwise sigmoid loss (Zhai et al. 2023).

Scale and bias begin where the paper puts them (t = 10, b = -10): at the start nearly every pair is a negative, and the
bias keeps the first steps from spending themselves on that. Everything else is as in clip_emoji.py, so that the two
reports compare the losses and nothing else.
"""

import dataclasses
from pathlib import Path

from clip_emoji import EXPERIMENT as CLIP

from mmjax.cli import main
from mmjax.objectives import Sigmoid

EXPERIMENT = dataclasses.replace(
  CLIP,
  model=dataclasses.replace(CLIP.model, init_logit_scale=10.0, init_logit_bias=-10.0),
  objectives=tuple(dataclasses.replace(objective, loss=Sigmoid()) for objective in CLIP.objectives),
  run=dataclasses.replace(CLIP.run, workdir=Path("runs/siglip_emoji")),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

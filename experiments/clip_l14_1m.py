"""CLIP ViT-L/14 with a batch of 2^20 pairs, the largest that Zhai et al. 2023 (SigLIP, section 4.1) tried.

They found 32,768 enough, for the softmax as for the sigmoid loss: this is a configuration to plan with, not
to beat clip_l14.py. The loss compares 2^40 pairs without holding them; the encoders see each device's rows in
32 microbatches (GradCache, Gao et al. 2021). As many examples are seen as in clip_l14.py, and the learning
rate is as there.
"""

import dataclasses
from pathlib import Path

from clip_l14 import EXPERIMENT as L14

from mmjax.cli import main

EXPERIMENT = dataclasses.replace(
  L14,
  parallel=dataclasses.replace(L14.parallel, microbatches=32),
  run=dataclasses.replace(L14.run, workdir=Path("runs/clip_l14_1m"), batch_size=2**20, steps=12_207, save_every=100),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

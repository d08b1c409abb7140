"""OpenCLIP ViT-H/14 on LAION-2B (Cherti et al. 2023; model card laion/CLIP-ViT-H-14-laion2B-s32B-b79K): batch
79,104.

The card reports 78.0% zero-shot on ImageNet after 32 billion samples on 824 A100s. Towers of 986 million
parameters together: image 1,280 wide and 32 deep, text 1,024 wide and 24 deep, both with the exact GELU;
learning rate 5e-4 (one entry of its appendix), crops and weight decay as in open_clip's code, other
hyper-parameters as in clip_b32.py. The batch here is
79,872, the next multiple of 256 devices x 3 microbatches x 8 examples, which fill the rows of a TPU's tiles. What
cannot be run here: the images are gone from the web in part, and never were ours.
"""

import dataclasses
from pathlib import Path

from clip_l14 import EXPERIMENT as L14

from mmjax.cli import main
from mmjax.encoders import vit_size

EXPERIMENT = dataclasses.replace(
  L14,
  data=dataclasses.replace(L14.data, augmentation=dataclasses.replace(L14.data.augmentation, crop_ratio=(0.75, 4 / 3))),
  model=dataclasses.replace(
    L14.model,
    image=dataclasses.replace(L14.model.image, **vit_size("H"), activation="gelu"),
    text=dataclasses.replace(L14.model.text, width=1024, depth=24, num_heads=16, activation="gelu"),
    embed_dim=1024,
  ),
  optimizer=dataclasses.replace(
    L14.optimizer,
    learning_rate=5e-4,
    weight_decay_rules=(("(kernel|embedding|class_position)$", 1.0), (".*", 0.0)),  # not the class token, a vector
  ),
  parallel=dataclasses.replace(L14.parallel, microbatches=3),
  run=dataclasses.replace(L14.run, workdir=Path("runs/openclip_h14"), batch_size=79_872, steps=400_641),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

"""SigLIP ViT-B/16 at 224 pixels (Zhai et al. 2023, sections 3 and 4): the pairwise sigmoid loss, batch 32,768.

Both towers are B: the image tower pools by attention (MAP), the text tower reads 64 tokens without a causal
mask, padding included, and takes the last. The temperature starts at 10 and the bias at -10 (section 3.2);
learning rate 1e-3, weight decay 1e-4, b2 0.95 (section 4.6: it keeps large batches stable), 9 billion
examples seen. The warm-up, 20,000 steps, is ours.

big_vision, the authors' code, adds the decay after the multiplication by the learning rate, and to kernels
alone. Here it is multiplied by the learning rate, so that 1e-4 is 1e-4 / 1e-3 = 0.1. Neither temperature nor
bias is clamped. Images are squashed into a square, here antialiased, there not. The initial weights are
big_vision's (Xavier). tests/experiments/paper_table.py has every value beside its source.

What cannot be run here: WebLI is not public. Point it at images of your own with `--data.source.path DIR`; their
captions get a BPE of the paper's size (32,000), unless `--data.tokenizer.path` names one. What it would take
elsewhere:

    python experiments/siglip_b16.py plan --topology v5e:16x16
"""

import math
from pathlib import Path

from mmjax.cli import main
from mmjax.data import AugmentationConfig, DataConfig, Folder, TokenizerConfig
from mmjax.encoders import TextConfig, ViTConfig, vit_size
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import TwoTowerConfig
from mmjax.objectives import Contrastive, Sigmoid
from mmjax.parallel import ParallelConfig
from mmjax.train import OptimizerConfig

EXPERIMENT = Experiment(
  data=DataConfig(
    source=Folder(),
    tokenizer=TokenizerConfig(vocab_size=32_000, max_length=64),
    augmentation=AugmentationConfig(
      crop_scale=(1.0, 1.0), rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0, background=0.0
    ),
    square="squash",
    workers=8,
  ),
  model=TwoTowerConfig(
    image=ViTConfig(**vit_size("B"), patch_size=16, activation="gelu_tanh", dtype="bfloat16", init_scheme="xavier"),
    text=TextConfig(
      **vit_size("B"),
      vocab_size=32_000,
      max_length=64,
      causal=False,
      mask_padding=False,
      pool="last",
      activation="gelu_tanh",
      dtype="bfloat16",
      init_scheme="xavier",
    ),
    embed_dim=768,
    image_projection="none",
    text_projection="affine",
    init_logit_scale=10.0,
    max_logit_scale=math.inf,
    init_logit_bias=-10.0,
    max_logit_bias=math.inf,
  ),
  objectives=(Contrastive(loss=Sigmoid()),),
  parallel=ParallelConfig(fsdp=16),
  optimizer=OptimizerConfig(
    learning_rate=1e-3,
    warmup_steps=20_000,
    b2=0.95,
    epsilon=1e-8,
    weight_decay=1e-4 / 1e-3,
    weight_decay_rules=(("kernel$", 1.0), (".*", 0.0)),
    clip_norm=1.0,
  ),
  run=RunConfig(workdir=Path("runs/siglip_b16"), batch_size=32_768, steps=274_658, save_every=2000, log_every=50),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

"""CLIP ViT-B/32 (Radford et al. 2021, table 20): 400 million pairs, batch 32,768, 32 epochs.

The paper reports 63.2% zero-shot on ImageNet (table 11). Its hyper-parameters (tables 18 to 20): AdamW,
learning rate 5e-4, b1 0.9, b2 0.98, epsilon 1e-6, weight decay 0.2 (not on gains and biases), 2,000 steps of
warm-up, cosine decay, temperature from 0.07 and clipped at 100; a random square crop is the only
augmentation. It names no gradient clipping, so there is none. tests/experiments/paper_table.py has every value
beside its source.

What cannot be run here: the pairs are not public, and neither is such a machine here. Point it at images of
your own with `--data.source.path DIR` (or `--data.source tfds --data.source.name ...`); their captions get a
byte-level BPE of CLIP's size, unless `--data.tokenizer.path` names one. What it would take elsewhere (a
v5e:16x16 reaches 50% of its peak, and 34% with blocks scanned and computed again, which compile three times
as fast: `--model.image.scan --model.image.remat attention`, the same for `text`):

    python experiments/clip_b32.py plan --topology v5e:16x16
"""

from pathlib import Path

from mmjax.cli import main
from mmjax.data import AugmentationConfig, DataConfig, Folder, TokenizerConfig
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import TwoTowerConfig
from mmjax.objectives import Contrastive
from mmjax.parallel import ParallelConfig
from mmjax.train import OptimizerConfig

EXPERIMENT = Experiment(
  data=DataConfig(
    source=Folder(),
    tokenizer=TokenizerConfig(vocab_size=49_408, max_length=77, bos_token="<bos>"),
    augmentation=AugmentationConfig(
      crop_scale=(0.9, 1.0),
      crop_ratio=(1.0, 1.0),
      rotation=0.0,
      brightness=0.0,
      contrast=0.0,
      saturation=0.0,
      background=0.0,
    ),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    interpolation="bicubic",
    workers=8,
  ),
  model=TwoTowerConfig(
    image=ViTConfig(
      patch_size=32,
      pool="cls",
      stem_bias=False,
      class_position=True,
      input_norm=True,
      activation="quick_gelu",
      norm_epsilon=1e-5,
      dtype="bfloat16",
    ),
    text=TextConfig(activation="quick_gelu", norm_epsilon=1e-5, dtype="bfloat16"),
    embed_dim=512,
  ),
  objectives=(Contrastive(),),
  parallel=ParallelConfig(fsdp=16),
  optimizer=OptimizerConfig(
    learning_rate=5e-4,
    warmup_steps=2000,
    b2=0.98,
    epsilon=1e-6,
    weight_decay=0.2,
    weight_decay_rules=(("(kernel|embedding|class_token|class_position)$", 1.0), (".*", 0.0)),
    clip_norm=0.0,
  ),
  run=RunConfig(workdir=Path("runs/clip_b32"), batch_size=32_768, steps=390_625, save_every=2000, log_every=50),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

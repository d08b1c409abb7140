"""CLIP on emoji: pictures by two artists, words in fourteen languages, tested on an artist it never saw."""

from pathlib import Path

from mmjax.cli import main
from mmjax.data import AugmentationConfig, DataConfig, TokenizerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.objectives.terms import Contrastive
from mmjax.train.optimizer import OptimizerConfig

EXPERIMENT = Experiment(
  data=DataConfig(
    trim=True,
    views=2,
    skin_tones=False,
    name_weight=0.6,
    keywords_weight=0.2,
    languages_weight=0.2,
    tokenizer=TokenizerConfig(vocab_size=4096, max_length=16),
    augmentation=AugmentationConfig(
      crop_scale=(0.8, 1.3),
      crop_ratio=(0.85, 1.18),
      rotation=12.0,
      shear=5.0,
      brightness=0.15,
      contrast=0.15,
      saturation=0.3,
      hue=0.03,
      greyscale=0.05,
      background=0.1,
      cutout=0.1,
    ),
  ),
  model=TwoTowerConfig(
    image=ViTConfig(image_size=32, patch_size=8, stem="conv", width=128, depth=3, num_heads=4, pool="flat"),
    text=TextConfig(width=128, depth=2, num_heads=4, causal=False, pool="mean"),
    embed_dim=256,
    init_logit_scale=20.0,
  ),
  objectives=(
    Contrastive(between=("image", "text"), mask_same_concept=True),
    Contrastive(between=("image2", "text"), mask_same_concept=True),
    Contrastive(between=("image", "image2"), mask_same_concept=True),
  ),
  optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, weight_decay=0.1, ema_decay=0.99),
  run=RunConfig(workdir=Path("runs/clip_emoji"), steps=700, batch_size=256),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

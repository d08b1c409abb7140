"""A training run on generated scenes, for an installation that has nothing but the wheel: see .ci/run."""

from mmjax.cli import main
from mmjax.data import DataConfig, Scenes, TokenizerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models.two_tower import TwoTowerConfig

EXPERIMENT = Experiment(
  data=DataConfig(
    source=Scenes(examples=60),
    dir="data",
    tokenizer=TokenizerConfig(vocab_size=300, max_length=8),
  ),
  model=TwoTowerConfig(
    image=ViTConfig(image_size=16, patch_size=8, width=16, depth=1, num_heads=2),
    text=TextConfig(width=16, depth=1, num_heads=2),
    embed_dim=8,
  ),
  run=RunConfig(steps=1, batch_size=16, log_every=1),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

"""Makes runs of CLIP for scripts/benchmarks/serve.py, after one step of training: their weights are nearly random.

python scripts/benchmarks/serve_model.py small build/small     ViT of 32 pixels, width 128, depth 3 (clip_emoji)
python scripts/benchmarks/serve_model.py vit_b32 build/b32     ViT-B/32 of 224 pixels
"""

import argparse
from pathlib import Path

from mmjax.data import DataConfig, Emoji, TokenizerConfig
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import TwoTowerConfig
from mmjax.train.loop import train

MODELS = {
  "small": TwoTowerConfig(
    image=ViTConfig(image_size=32, patch_size=8, stem="conv", width=128, depth=3, num_heads=4, pool="flat"),
    text=TextConfig(width=128, depth=2, num_heads=4, causal=False, pool="mean"),
    embed_dim=256,
  ),
  "vit_b32": TwoTowerConfig(
    image=ViTConfig(image_size=224, patch_size=32, width=768, depth=12, num_heads=12, pool="cls"),
    text=TextConfig(width=256, depth=4, num_heads=4),
    embed_dim=512,
  ),
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("model", choices=MODELS)
  parser.add_argument("workdir", type=Path)
  args = parser.parse_args()
  train(
    Experiment(
      data=DataConfig(source=Emoji(limit=200), tokenizer=TokenizerConfig(vocab_size=4096, max_length=16)),
      model=MODELS[args.model],
      run=RunConfig(workdir=args.workdir, steps=1, batch_size=4, log_every=1, tensorboard=False),
    )
  )


if __name__ == "__main__":
  main()

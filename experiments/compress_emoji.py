"""Pruning of the main job's model, by how much of it is left: structured, and by the magnitude of single weights.

Zhu and Gupta 2017 find that most weights of a network can become zero at little cost, if they do so step by step while
it trains; Michel et al. 2019 find the same of whole attention heads. The model of clip_emoji.py is trained first (or
found in WORKDIR/main). Every variant begins from it and trains for as many steps, the whole model too.

The study has not been run as a whole. For the main job stopped at step 218 of 480 (one seed, 2026-12-01), the model
without half of its heads and units had, before and after 40 steps of 1e-3:

                         Noto to Twemoji, R@1    name to Noto, R@1    held-out concepts, R@10
    whole                .367                    .202                 .254
    half removed         .364                    .049                 .203
    and after 40 steps   .368                    .154                 .224

So images lose nothing, and names are not yet back. It has 1.62 of 2.11 million parameters, and is 1.57 (images) and
1.82 times (texts) faster in batches of 64 on a CPU. Magnitude pruning has not been measured here.
"""

import dataclasses
from pathlib import Path

from clip_emoji import EXPERIMENT as CLIP

from mmjax.deploy import prune, pruned_config, write_weights
from mmjax.experiment import PretrainedConfig
from mmjax.settings import CompressionConfig
from mmjax.study import Study, Variant, main

EXPERIMENT = dataclasses.replace(
  CLIP,
  optimizer=dataclasses.replace(CLIP.optimizer, learning_rate=1e-3, warmup_steps=12),
  run=dataclasses.replace(CLIP.run, workdir=Path("runs/compress_emoji"), steps=120),
)


def begun(experiment, share, **changes):
  """The experiment, from the weights of the main job without a share of the heads and MLP units."""
  path = experiment.run.workdir / f"without_{share:g}"
  return dataclasses.replace(experiment, pretrained=PretrainedConfig(path=str(path)), **changes)


def begin(share):
  """Function that writes the weights that a variant begins from. It trains the main job, if that has not been done."""

  def prepare(experiment):
    from mmjax.loading import load_run
    from mmjax.train import train

    path = Path(experiment.pretrained.path)
    train(dataclasses.replace(CLIP, run=dataclasses.replace(CLIP.run, workdir=path.parent / "main")))
    run = load_run(path.parent / "main")
    config, params = (
      prune(run.experiment.model, run.params, heads=share, units=share) if share else (run.experiment.model, run.params)
    )
    write_weights(run, config, params, path)

  return prepare


def smaller(share):
  """Variant without a share of the heads and of the MLP units of each block."""

  def change(experiment):
    return begun(experiment, share, model=pruned_config(experiment.model, heads=share, units=share))

  name = f"{share:.0%} of heads and units removed" if share else "whole model"
  return Variant(name, change, series="heads and units", x=1 - share, prepare=begin(share))


def sparser(share):
  """Variant whose kernels have a share of zeros at the end."""
  change = lambda experiment: begun(experiment, 0, compression=CompressionConfig(sparsity=share))
  return Variant(f"{share:.0%} of weights zero", change, series="magnitude", x=1 - share, prepare=begin(0))


STUDY = Study(
  variants=(*map(smaller, (0, 0.25, 0.5, 0.75)), *map(sparser, (0.5, 0.8, 0.9))),
  metrics={
    "Noto to Twemoji, R@1": "emoji_noto_to_twemoji/image_retrieval_recall@1",
    "name to Noto, R@1": "emoji_noto/image_retrieval_recall@1",
    "held-out concepts, R@10": "emoji_heldout_noto/image_retrieval_recall@10",
  },
  axis="share of the heads and units, or of the weights, that is left",
)

if __name__ == "__main__":
  main(STUDY, EXPERIMENT, description=__doc__)

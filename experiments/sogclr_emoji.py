"""SogCLR on emoji: does a normaliser per example make up for a small batch?

Yuan et al. 2022 (SogCLR): the gradient of the softmax loss is biased where the batch is small, since its denominator is
estimated from the batch alone. A moving average of each example's own denominator, kept from epoch to epoch, takes the
bias away; FastCLIP (Wei et al. 2024) lets the batch's share of it (gamma) fall during training. The claim to check: at
batch 32, SogCLR beats CLIP, and comes close to CLIP at batch 256. All see the same number of examples.

Mean and standard deviation of three seeds, 48,000 examples, 2026-11-30 (chance .025):

                                      text to unseen artist, R@10    unseen artist to text, R@10
    CLIP, batch 32                    .584 ± .041                    .574 ± .023
    SogCLR, batch 32, gamma to 0.2    .539 ± .038                    .536 ± .031
    CLIP, batch 256                   .609 ± .025                    .602 ± .019

So the claim is not reproduced here. CLIP loses little by the small batch, and SogCLR is about one standard deviation
below it. The data has about 400 concepts, so that a batch of 32 holds a twelfth of them. Other values of gamma and
other learning rates were not tried.
"""

import dataclasses
from pathlib import Path

from clip_emoji import EXPERIMENT as CLIP
from clip_emoji import NAMES

from mmjax.objectives import Contrastive, Sogclr
from mmjax.study import Study, Variant, main

EXAMPLES = 48_000
HALF = dict(width=64, num_heads=2)

EXPERIMENT = dataclasses.replace(
  CLIP,
  data=NAMES,
  model=dataclasses.replace(
    CLIP.model,
    image=dataclasses.replace(CLIP.model.image, **HALF),
    text=dataclasses.replace(CLIP.model.text, **HALF),
  ),
  objectives=(Contrastive(),),
  run=dataclasses.replace(CLIP.run, workdir=Path("runs/sogclr_emoji"), batch_size=32, steps=EXAMPLES // 32),
)


def trained(objective, batch_size):
  """The experiment with one objective, for a number of examples and not of steps."""

  def change(experiment):
    examples = experiment.run.steps * experiment.run.batch_size
    run = dataclasses.replace(experiment.run, batch_size=batch_size, steps=max(1, examples // batch_size))
    return dataclasses.replace(experiment, objectives=(objective,), run=run)

  return change


STUDY = Study(
  variants=(
    Variant("CLIP, batch 32", trained(Contrastive(), 32)),
    Variant("SogCLR, batch 32, gamma to 0.2", trained(Sogclr(gamma=((0, 1.0), (750, 0.2))), 32)),
    Variant("CLIP, batch 256", trained(Contrastive(), 256)),
  ),
  metrics={
    "text to unseen artist, R@10": "emoji_noto/image_retrieval_recall@10",
    "unseen artist to text, R@10": "emoji_noto/text_retrieval_recall@10",
  },
  seeds=3,
  reports=False,
)

if __name__ == "__main__":
  main(STUDY, EXPERIMENT, description=__doc__)

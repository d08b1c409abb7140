"""easy-VQA: a published small benchmark of questions about shapes and colours.

4,000 training pictures of one shape in one colour with 38,575 questions, 1,000 test pictures with 9,673 (the PyPI
package easy-vqa by Victor Zhou, whose own CNN and bag of words, multiplied, is reported to reach 99%). The joint
transformer of vqa_scenes.py at 32 pixels.

5,000 test questions, seed 0, 2026-11-22: accuracy .853, the commonest answer to each question .670 (1,600 steps; with
plain patches and 1,200 steps .851). Colours are told (.94 to 1.00 of each), shapes are not (.26 to .59 recall): the
accuracy in training still rose when it ended (.869). So this falls short of what the task allows, .95 and more;
longer runs and random crops were not tried.
"""

import dataclasses
from pathlib import Path

from vqa_scenes import EXPERIMENT as SCENES

from mmjax.cli import main

EXPERIMENT = dataclasses.replace(
  SCENES,
  data=dataclasses.replace(
    SCENES.data, source="easy_vqa", augmentation=dataclasses.replace(SCENES.data.augmentation, flip=0.5)
  ),
  model=dataclasses.replace(
    SCENES.model,
    # Shapes lie anywhere, across patches: convolutions see their corners. Most of the work is to see.
    image=dataclasses.replace(SCENES.model.image, stem="conv", patch_size=4, depth=3, num_heads=2),
    text=dataclasses.replace(SCENES.model.text, num_heads=2),
    fusion=dataclasses.replace(SCENES.model.fusion, kind="product"),
  ),
  objectives=SCENES.objectives[:1],  # the package says nothing of pixels
  run=dataclasses.replace(SCENES.run, workdir=Path("runs/vqa_easy"), steps=2600),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

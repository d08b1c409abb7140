"""easy-VQA: a published small benchmark of questions about shapes and colours.

4,000 training pictures of one shape in one colour with 38,575 questions, 1,000 test pictures with 9,673 (the PyPI
package easy-vqa by Victor Zhou, whose own CNN and bag of words, multiplied, is reported to reach 99%). The joint
transformer of vqa_scenes.py at 32 pixels.

Not yet run to the end.
"""

import dataclasses
from pathlib import Path

from vqa_scenes import EXPERIMENT as SCENES

from mmjax.cli import main

EXPERIMENT = dataclasses.replace(
  SCENES,
  data=dataclasses.replace(
    SCENES.data,
    source="easy_vqa",
    # There are 4,000 pictures, and nothing is asked about places.
    augmentation=dataclasses.replace(SCENES.data.augmentation, crop_scale=(0.7, 1.0), flip=0.5),
  ),
  # Shapes lie anywhere, across patches: convolutions see their corners.
  model=dataclasses.replace(SCENES.model, image=dataclasses.replace(SCENES.model.image, stem="conv")),
  objectives=SCENES.objectives[:1],  # the package says nothing of pixels
  run=dataclasses.replace(SCENES.run, workdir=Path("runs/vqa_easy"), steps=2400),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

"""UniCL on emoji: pictures with a class and pictures with a text, taught by one loss.

Yang et al. 2022 (UniCL, the objective of Florence): a picture with a class is a picture whose text is the class's name.
Within a batch many pictures then share a text, and CLIP's loss calls all but one of them wrong; UniCL makes all
pictures with one text, and all copies of that text, positives of each other. The claim to check is that classes are
told better for it, and texts not worse. Half of the texts are one of nine groups here ("animals and nature"), the
others names, keywords and names in thirteen languages; told are the groups of concepts that were never seen.

Not yet run to the end: no numbers to expect.
"""

import dataclasses
from pathlib import Path

from clip_emoji import EXPERIMENT as CLIP

from mmjax.objectives.terms import Contrastive
from mmjax.study import Study, Variant, main

EXPERIMENT = dataclasses.replace(
  CLIP,
  data=dataclasses.replace(
    CLIP.data, views=1, groups_weight=0.5, name_weight=0.3, keywords_weight=0.1, languages_weight=0.1
  ),
  objectives=(Contrastive(loss="unicl", labels="text"),),
  run=dataclasses.replace(CLIP.run, workdir=Path("runs/unicl_emoji"), steps=300),
)


def captions_only(experiment):
  """No classes: what they add."""
  return dataclasses.replace(
    experiment,
    data=dataclasses.replace(experiment.data, groups_weight=0.0),
    objectives=(Contrastive(mask_same_concept=True),),
  )


STUDY = Study(
  variants=(
    Variant("UniCL", lambda experiment: experiment),
    Variant("CLIP", lambda experiment: dataclasses.replace(experiment, objectives=(Contrastive(),))),
    Variant("CLIP, no classes", captions_only),
  ),
  metrics={
    "group of an unseen concept, acc@1": "emoji_groups_by_name/acc1",
    "mean per class": "emoji_groups_by_name/mean_per_class_recall",
    "text to unseen artist, R@10": "emoji_noto/image_retrieval_recall@10",
    "held-out concepts, R@10": "emoji_heldout_noto/image_retrieval_recall@10",
  },
)

if __name__ == "__main__":
  main(STUDY, EXPERIMENT, description=__doc__)

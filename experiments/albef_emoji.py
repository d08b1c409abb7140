"""ALBEF on emoji: align before fuse, with a momentum teacher, matching and masked words.

Li et al. 2021 (ALBEF): picture and text are first aligned by contrast with a moving average of the model and a queue of
what it said, then fused: the fused text says whether the pair belongs together (negatives drawn where the contrast errs
most) and what its hidden words are. The moving average's guesses are part of the targets, against noisy captions. The
claims to check: matching tells right from wrong pairs (AUC), and ordering the most similar pictures anew by the match
head beats the similarity alone.

Not yet run to the end: no numbers to expect.
"""

import dataclasses
from pathlib import Path
from typing import Any

from clip_emoji import EXPERIMENT as CLIP

from mmjax.cli import main
from mmjax.encoders.bert import bert_config
from mmjax.encoders.vit import ViTConfig
from mmjax.models.albef import AlbefConfig
from mmjax.objectives.pair_terms import Matching, MomentumContrastive
from mmjax.objectives.word_terms import MaskedWords

TOWER: Any = dict(width=128, num_heads=4)
RAMP = ((0, 0.0), (100, 0.4))

EXPERIMENT = dataclasses.replace(
  CLIP,
  data=dataclasses.replace(
    CLIP.data,
    views=1,
    tokenizer=dataclasses.replace(CLIP.data.tokenizer, cls_token="<cls>", mask_token="<mask>"),
  ),
  model=AlbefConfig(
    image=ViTConfig(**TOWER, depth=3, image_size=32, patch_size=8, stem="conv", pool="cls"),
    text=bert_config(**TOWER, depth=2, norm="pre", input_norm=False, token_types=0, tanh_pool=False),
    fusion_depth=2,
    init_logit_scale=20.0,
  ),
  objectives=(
    MomentumContrastive(queue_size=1024, alpha=RAMP, mask_same_concept=True),
    Matching(group=64),
    MaskedWords(alpha=RAMP),
  ),
  optimizer=dataclasses.replace(CLIP.optimizer, ema_decay=0.98),
  run=dataclasses.replace(CLIP.run, workdir=Path("runs/albef_emoji"), steps=250, batch_size=128),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

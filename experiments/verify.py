"""Are two words of one speaker? Embeddings of voices by ArcFace (Deng et al. 2019), tested on voices never heard.

A small audio spectrogram transformer learns the voices of eSpeak NG that say the ten digits. Every fourth voice is held
out. All pairs of its recordings are trials, also of other digits and languages. `--data.source.test real` trains on all
synthetic voices and tests on the real ones that are installed (see speech_words.py).

Equal error rate and true acceptances at 1% of false ones, over the 258,840 pairs of 720 recordings of 24 voices, of
which none was heard in training; 2026-11-30, one seed, 500 steps (some 60 s of processor time):

    this model, ArcFace with a margin of .3                EER .092    TAR .495
    without a margin (--objectives.0.margin 0)                 .107        .474
    mean spectrum of the recording (the floor)                 .357        .076
    chance                                                     .5          .01

Not run: CosFace (--objectives.0 cos_face), more seeds.
"""

from pathlib import Path

from mmjax.cli import main
from mmjax.data import ClassLabel, DataConfig, LogMel, Sound, SoundAugmentation, SpokenDigits
from mmjax.encoders import AstConfig
from mmjax.evaluators import EvaluationConfig, Verification
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import VerifierConfig
from mmjax.objectives import ArcFace
from mmjax.train import OptimizerConfig

VOICE = Sound(
  features=LogMel(rate=8000, mels=40, window=200, hop=80, fft=256, low=100.0, high=3800.0, scale="htk", area=False),
  seconds=2.0,
  frames=32,
  pad="stretch",
  normalize="data",
  loudness=-26.0,
  augmentation=SoundAugmentation(
    shift=0.05, noise=0.5, noise_level=(20.0, 40.0), time_masks=1, time_width=4, band_masks=1, band_width=4
  ),
)

EXPERIMENT = Experiment(
  data=DataConfig(
    source=SpokenDigits(spoken=("en", "es", "it"), voices=96, takes=1, test="synthetic"),
    columns={"audio": VOICE, "label": ClassLabel(field="speaker", unseen="accept")},
  ),
  model=VerifierConfig(
    towers={
      "audio": AstConfig(
        frames=32, bands=40, patch_size=4, patch_bands=40, time_stride=2, width=64, depth=2, num_heads=4, pool="mean"
      )
    },
    embed_dim=64,
  ),
  objectives=(ArcFace(scale=16.0, margin=0.3),),
  optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=30, weight_decay=0.05, ema_decay=0.99),
  evaluation=EvaluationConfig(evaluators={"verification": Verification()}),
  run=RunConfig(workdir=Path("runs/verify"), steps=500, batch_size=64),
)

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__)

"""Sounds of instruments and their names in one space, by contrast (CLAP, Elizalde et al. 2023), tested on a sound font
that was never heard.

An audio spectrogram transformer and a text transformer learn from notes of 96 instruments in two sound fonts. The test
has notes of a third one. It needs Debian's csound-soundfont, timgm6mb-soundfont and fluid-soundfont-gm
(`--data.source.root DIR` for packages that are only unpacked) and `pip install --no-deps tinysoundfont`.

Notes of the unseen font, 480, each against the 96 names; 2026-11-30, one seed, 500 steps, without `band_gain`:

    a sound to its name                       R@1 .212    R@5 .565    chance .010
    a name to its sounds                          .198        .479
    pairs shuffled in evaluation                  .019
    nearest mean spectrum (the control)           .183

The aim of .35 was not reached, nor the .287 of the calibration. With the random filter (`band_gain`), as it stands
here, it has not been run. csound's and timgm's fonts share recordings: held out instead of fluid's, the nearest mean
spectrum alone would name 81%.
"""

import dataclasses
from pathlib import Path

import numpy as np

from mmjax.cli import main
from mmjax.data import Caption, DataConfig, Instruments, LogMel, Sound, SoundAugmentation, TokenizerConfig, make_source
from mmjax.encoders import AstConfig, TextConfig
from mmjax.evaluate import Evaluator, Table, make_result
from mmjax.evaluators import EvaluationConfig, PairRetrieval
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import SharedSpaceConfig
from mmjax.objectives import Contrastive, Unicl
from mmjax.train import OptimizerConfig

NOTE = Sound(
  features=LogMel(rate=16_000, mels=64, window=512, hop=320, fft=512, low=50.0, high=8000.0),
  seconds=1.0,
  frames=48,
  normalize="data",
  loudness=-26.0,
  augmentation=SoundAugmentation(
    shift=0.05,
    noise=0.5,
    noise_level=(15.0, 40.0),
    time_masks=1,
    time_width=8,
    band_masks=2,
    band_width=8,
    band_gain=0.5,
  ),
)


@dataclasses.dataclass(frozen=True)
class NearestSpectrum(Evaluator):
  """The control: the instrument of the training note whose mean spectrum is the nearest."""

  def run(self, run, shared):
    train, test = (spectra(run, split) for split in ("train", "validation"))
    mean, deviation = train[0].mean(0), train[0].std(0)
    rows = [(rows - mean) / deviation for rows, _ in (train, test)]
    far = np.square(rows[1]).sum(1)[:, None] + np.square(rows[0]).sum(1)[None] - 2 * rows[1] @ rows[0].T
    share = float((train[1][far.argmin(axis=1)] == test[1]).mean())
    table = Table("nearest", "Controls")
    found = {"acc1": share}, {"acc1": 1 / 96}
    return [make_result(run, "nearest_spectrum", "control", "Nearest mean spectrum", test[1], found, table=table)]


def spectra(run, split):
  """(mean features of every note, its instrument)."""
  records, learnt = make_source(run.experiment.data, split), run.fitted["audio"]
  rows = [
    (NOTE.row(record, None, learnt).mean(0), record["concept"])
    for record in map(records.__getitem__, range(len(records)))
  ]
  return np.stack([row for row, _ in rows]), np.array([concept for _, concept in rows])


KINDS = (NearestSpectrum,)

EXPERIMENT = Experiment(
  data=DataConfig(
    source=Instruments(),
    columns={"audio": NOTE, "text": Caption()},
    tokenizer=TokenizerConfig(vocab_size=512, max_length=8),
  ),
  model=SharedSpaceConfig(
    towers={
      "audio": AstConfig(
        frames=48, bands=64, patch_size=8, time_stride=8, band_stride=8, width=96, depth=3, num_heads=4, pool="mean",
        drop_path=0.1,
      ),
      "text": TextConfig(width=64, depth=2, num_heads=4),
    },
    embed_dim=64,
    init_logit_scale=10.0,
  ),
  objectives=(Contrastive(between=("audio", "text"), loss=Unicl()),),
  optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=50, weight_decay=0.1, ema_decay=0.99),
  evaluation=EvaluationConfig(
    counts="concept", evaluators={"pairs": PairRetrieval(), "nearest": NearestSpectrum()}
  ),
  run=RunConfig(workdir=Path("runs/audio_text"), steps=500, batch_size=96),
)  # fmt: skip

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__, kinds=KINDS)

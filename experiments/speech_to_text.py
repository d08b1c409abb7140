"""Speech to letters without alignments: numbers of one to three digits, by CTC (Graves et al. 2006).

Whisper's encoder, small, learns from voices of eSpeak NG; every fourth voice is held out. A recording is one to three
spoken digits of one voice with pauses between them, and its text is the words: "three five one". The symbols are
letters. `--data.source.test real` trains on all synthetic voices and tests on the real ones that are installed (see
speech_words.py; of PyPI alone that is the one of captcha).

Voices never heard, 300 numbers, 2026-11-30, one seed, an earlier form of this script (600 steps, frames of 10 ms):

    likeliest path                                  CER .376    WER .854
    prefix beam of 8                                    .292        .740
    against the text of another recording               .918       1.192

The loss was still falling. What stands here (1,000 steps, frames of 15 ms, weaker masks) has not been run to its end.
The beam is `RecognizedTexts(beams=8)`. Not run: real voices, the control `--data.source.shuffled`.
"""

import dataclasses
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmjax.cli import main
from mmjax.data import DataConfig, LogMel, Sound, SoundAugmentation, Source, SpokenDigits, Text, TokenizerConfig
from mmjax.data import concept_number as concept
from mmjax.encoders import SpeechConfig
from mmjax.evaluators import EvaluationConfig, RecognizedTexts
from mmjax.experiment import Experiment, RunConfig
from mmjax.models import RecognizerConfig
from mmjax.objectives import Ctc
from mmjax.train import OptimizerConfig

WORDS = "zero one two three four five six seven eight nine".split()
RATE = 8000


@dataclasses.dataclass(frozen=True)
class DigitStrings(Source):
  """Numbers of one to three English digits, spoken one after the other in one voice."""

  voices: int = 96
  """Synthetic voices."""
  takes: int = 2
  """Recordings of a digit by a synthetic voice."""
  strings: int = 3000
  """Numbers for training. A tenth as many are for validation."""
  seconds: float = 2.4
  """Longest recording. A digit that does not fit is left out."""
  test: Literal["real", "synthetic"] = "synthetic"
  """Voices of the validation split, as for SpokenDigits."""
  root: str = "/"
  """Folder in which Debian's packages are installed, or unpacked."""
  shuffled: bool = False
  """Give every training recording the text of another one (the control)."""

  @property
  def columns(self):
    return {"audio": Sound(), "text": Text()}

  def open(self, split, reading):
    digits = SpokenDigits(spoken=("en",), voices=self.voices, takes=self.takes, test=self.test, root=self.root)
    recordings = digits.open(split, reading)
    voices: Any = defaultdict(lambda: defaultdict(list))
    for record in (recordings[place] for place in range(len(recordings))):
      voices[record["speaker"]][int(record["label"])].append(record["sound"][0])
    complete = sorted(name for name, said in voices.items() if len(said) == len(WORDS))
    rng = np.random.default_rng(split == "train")
    records = [
      self.record(number, complete[number % len(complete)], voices[complete[number % len(complete)]], rng)
      for number in range(self.strings if split == "train" else max(1, self.strings // 10))
    ]
    if not (self.shuffled and split == "train"):
      return records
    texts = rng.permutation([record["text"] for record in records]).tolist()
    return [{**record, "text": text} for record, text in zip(records, texts, strict=True)]

  def record(self, number, voice, said, rng):
    parts: list[Any] = []
    words: list[str] = []
    for digit in rng.integers(10, size=rng.integers(1, 4)).tolist():
      part = said[digit][rng.integers(len(said[digit]))]
      pause = np.zeros(rng.integers(RATE // 20, RATE // 5), np.int16)
      if not words or sum(len(each) for each in parts) + len(part) + len(pause) < self.seconds * RATE:
        parts, words = [*parts, part, pause], [*words, WORDS[digit]]
    text = " ".join(words)
    return {"id": f"{voice}/{number}", "concept": concept(text), "sound": (np.concatenate(parts), RATE), "text": text}


KINDS = (DigitStrings,)

EXPERIMENT = Experiment(
  data=DataConfig(
    source=DigitStrings(),
    columns={
      "audio": Sound(
        features=LogMel(rate=RATE, mels=40, window=240, hop=120, fft=256, low=100.0, high=3800.0, scale="htk"),
        seconds=2.4,
        frames=160,
        pad="mask",
        normalize="clip",
        augmentation=SoundAugmentation(noise=0.5, noise_level=(15.0, 40.0), time_masks=1, time_width=6,
                                       band_masks=1, band_width=5),
      ),
      "text": Text(),
    },
    tokenizer=TokenizerConfig(vocab_size=258, max_length=20),
  ),
  model=RecognizerConfig(audio=SpeechConfig(width=96, depth=3, num_heads=4, mel_bins=40, frames=160, masked=True)),
  objectives=(Ctc(),),
  optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50, weight_decay=0.01, ema_decay=0.98),
  evaluation=EvaluationConfig(evaluators={"recognized": RecognizedTexts()}),
  run=RunConfig(workdir=Path("runs/speech_to_text"), steps=1000, batch_size=32),
)  # fmt: skip

if __name__ == "__main__":
  main(EXPERIMENT, description=__doc__, kinds=KINDS)

"""Notes of General MIDI's instruments, rendered from sound fonts that are installed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.errors import DataError
from mmjax.data.sound.clip import Clip, resampled

RATE = 16_000
"""Samples per second of the notes."""
_RENDERED = 32_000
FONTS = {"csound": "sf_GMbank.sf2", "timgm": "TimGM6mb.sf2", "fluid": "FluidR3_GM.sf2"}
"""Files of Debian's csound-soundfont, timgm6mb-soundfont and fluid-soundfont-gm. The first two share recordings."""
FAMILIES: dict[int, tuple[str, str]] = {
  0: ("piano", "acoustic grand piano, bright acoustic piano, electric grand piano, honky-tonk piano, electric piano, "
      "fm electric piano, harpsichord, clavinet"),
  8: ("chromatic percussion", "celesta, glockenspiel, music box, vibraphone, marimba, xylophone, tubular bells, "
      "dulcimer"),
  16: ("organ", "drawbar organ, percussive organ, rock organ, church organ, reed organ, accordion, harmonica, "
       "tango accordion"),
  24: ("guitar", "nylon guitar, steel guitar, jazz guitar, clean electric guitar, muted electric guitar, "
       "overdriven guitar, distortion guitar, guitar harmonics"),
  32: ("bass", "acoustic bass, fingered bass, picked bass, fretless bass, slap bass, hard slap bass, synth bass, "
       "deep synth bass"),
  40: ("strings", "violin, viola, cello, contrabass, tremolo strings, pizzicato strings, orchestral harp, timpani"),
  48: ("ensemble", "string ensemble, slow string ensemble, synth strings, slow synth strings, choir aahs, voice oohs, "
       "synth voice, orchestra hit"),
  56: ("brass", "trumpet, trombone, tuba, muted trumpet, french horn, brass section, synth brass, soft synth brass"),
  64: ("reed", "soprano sax, alto sax, tenor sax, baritone sax, oboe, english horn, bassoon, clarinet"),
  72: ("pipe", "piccolo, flute, recorder, pan flute, blown bottle, shakuhachi, whistle, ocarina"),
  104: ("ethnic", "sitar, banjo, shamisen, koto, kalimba, bagpipe, fiddle, shanai"),
  112: ("percussive", "tinkle bell, agogo, steel drums, woodblock, taiko drum, melodic tom, synth drum, "
        "reverse cymbal"),
}  # fmt: skip
"""(family, its eight instruments) by the number of the first one: the 96 that are no synthesizer sounds."""


class Note(NamedTuple):
  """A rendered note: number and name of the instrument, its family, font, MIDI key, and float32 samples of RATE."""

  program: int
  instrument: str
  family: str
  font: str
  key: int
  samples: np.ndarray


def find_font(name: str, root: Path) -> Path:
  """Find a sound font of FONTS. Raises DataError, which names the package, if it is not installed."""
  path = root / "usr/share/sounds/sf2" / FONTS[name]
  if not path.is_file():
    package = {"csound": "csound-soundfont", "timgm": "timgm6mb-soundfont", "fluid": "fluid-soundfont-gm"}[name]
    raise DataError(
      f"there is no sound font {path}: install Debian's {package}, or unpack it (dpkg -x) and set --data.source.root."
    )
  return path


def notes(font: str, root: Path, keys: Sequence[int], seconds: float) -> Iterator[Note]:
  """Render a note of every instrument and key. The key is let go after 70% of the time.

  Args:
    font: name of a sound font.
    root: folder in which Debian's packages are installed (/) or unpacked.
    keys: MIDI keys; 60 is the middle c.
    seconds: length of a note.
  Raises: DataError: the font, or the package tinysoundfont, is not installed.
  """
  synth: Any = _library().Synth(samplerate=_RENDERED)
  loaded = synth.sfload(str(find_font(font, root)), gain=0)

  def part(share: float) -> np.ndarray:
    stereo = np.frombuffer(bytes(synth.generate(int(_RENDERED * seconds * share))), np.float32)
    return stereo.reshape(-1, 2).mean(axis=1)

  for first, (family, names) in FAMILIES.items():
    for place, name in enumerate(names.split(", ")):
      synth.program_select(0, loaded, 0, first + place)
      for key in keys:
        synth.noteon(0, key, 100)
        held = part(0.7)
        synth.noteoff(0, key)
        samples = resampled(Clip(np.concatenate([held, part(0.3)]), _RENDERED), RATE).samples
        synth.sounds_off()
        part(0.25)
        yield Note(first + place, name, family, font, key, samples)


def _library() -> Any:
  try:
    import tinysoundfont
  except ImportError as error:
    raise DataError(
      f"Sound fonts need the package tinysoundfont ({error}). Install it: pip install --no-deps tinysoundfont."
    ) from error
  return tinysoundfont

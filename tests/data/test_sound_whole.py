"""A sound file is read whole: sound that a decoder would leave out is refused, by the name of the record."""

import struct

import numpy as np
import pytest

from mmjax.data import DataError
from mmjax.data.sound import flac
from mmjax.data.sound.headers import after_id3
from mmjax.data.sound.mpeg import _frame
from mmjax.data.sound.reading import read_sound
from tests.data.sounds import encoded, tone

TONE = tone()
ID3 = b"ID3\3\0\0\0\0\0\x0a" + bytes(10)
ID3V1, APE = b"TAG".ljust(128, b"\0"), b"APETAGEX".ljust(32, b"\0")


def without_count(data: bytes) -> bytes:
  """An MP3 without the frame that says how many there are."""
  return data[_frame(data, 0).size :]


def middle(data: bytes) -> int:
  """Place of a frame in the middle of an MP3."""
  place = 0
  while place < len(data) // 2:
    place += _frame(data, place).size
  return place


def with_total(data: bytes, total: int) -> bytes:
  """A FLAC whose header claims a number of samples."""
  head = int.from_bytes(data[18:26], "big") & ~(2**36 - 1)
  return data[:18] + (head | total).to_bytes(8, "big") + data[26:]


def wav(*, claimed: int | None = None, after: bytes = b"", block: int = 2) -> bytes:
  data = (TONE * 32767).astype("<i2").tobytes()
  form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, block, 16)
  chunks = b"WAVE" + form + b"data" + struct.pack("<I", len(data) if claimed is None else claimed) + data + after
  return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


WAV, FLAC, OGG, MP3 = (encoded(TONE, form) for form in ("WAV", "FLAC", "OGG", "MP3"))
OPUS, BARE = encoded(TONE, "OGG", codec="OPUS"), without_count(encoded(tone(1.0), "MP3"))


@pytest.mark.parametrize(
  "data, message",
  [
    (WAV + WAV, "after the sound that its header counts, 16044 bytes are no part of a WAV"),
    (wav(claimed=8000), "after the sound that its header counts, 8000 bytes"),
    (wav(after=b"data" + struct.pack("<I", 4) + bytes([1, 2, 3, 4])), "after the sound that its header counts"),
    (wav(claimed=0), "does not say how long"),
    (wav(block=4), "contradicts itself: 1 channels of 16 bits in 4 bytes"),
    (FLAC + FLAC, rf"a second FLAC file begins at byte {len(FLAC)}"),
    (with_total(FLAC, 4000), "claims 4000 samples, and its last frame ends at sample 8000"),
    (OGG + OGG, rf"a second stream begins at byte {len(OGG)}"),
    (OPUS + OPUS, rf"a second stream begins at byte {len(OPUS)}"),
    (OGG[:-40] + b"junk" + OGG[-40:] + OGG, "truncated|damaged"),
    (MP3 + MP3, "counts 16 frames, and there are 33"),
    (BARE + ID3V1 + BARE, "the frames end at byte"),
    (BARE[: middle(BARE)] + b"\0junk" * 8 + BARE[middle(BARE) :], "the frames end at byte"),
    (BARE[: middle(BARE)] + ID3 + BARE[middle(BARE) :], "the frames end at byte"),
    (BARE + without_count(encoded(tone(1.0, rate=44100), "MP3", rate=44100)), "the rate or the channels change"),
  ],
)
def test_sound_that_would_vanish_is_refused(data, message):
  with pytest.raises(DataError, match=f"^clip 7: .*({message})"):
    read_sound(data, record="clip 7")


@pytest.mark.parametrize(
  "data, same",
  [
    (wav(after=b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"id3 " + struct.pack("<I", 2) + b"ab"), wav()),
    (wav(after=ID3V1), wav()),
    (wav(after=bytes(9)), wav()),
    (ID3 + WAV, WAV),
    (ID3 + FLAC, FLAC),
    (ID3 + OGG, OGG),
    (OGG + b"\1" * 64, OGG),
    (with_total(FLAC, 0), FLAC),
    (BARE + APE + ID3V1, BARE),
    (ID3 + bytes(50) + BARE, BARE),
    (MP3 + ID3V1, MP3),
  ],
)
def test_what_is_no_sound_around_it_changes_nothing(data, same):
  np.testing.assert_array_equal(read_sound(data).samples, read_sound(same).samples)


def test_two_mp3_without_a_count_are_one():
  assert len(read_sound(BARE + BARE).samples) > 1.9 * len(read_sound(BARE).samples) > 0


@pytest.mark.parametrize("rate, channels, samples", [(8000, 1, 9), (44100, 2, 5000), (96000, 1, 300_000)])
def test_the_last_frame_of_a_flac_says_how_long_it_is(rate, channels, samples):
  data = encoded(tone(samples / rate, rate=rate, channels=channels), "FLAC", rate=rate)
  assert flac._end(data) == int(samples / rate * rate)
  np.testing.assert_array_equal(read_sound(with_total(data, 0)).samples, read_sound(data).samples)


def test_a_flac_from_a_pipe_that_is_cut_off_is_refused():
  with pytest.raises(DataError, match="clip 7: .*(corrupt|damaged)"):
    read_sound(with_total(FLAC, 0)[:-50], record="clip 7")
  assert after_id3(ID3) == 20

"""Reading of sound files: right samples, or one sentence that names the record."""

import struct
import sys

import numpy as np
import pytest

from mmjax.data import DataError
from mmjax.data.sound.clip import Clip, fitted, resampled, with_loudness
from mmjax.data.sound.mpeg import _frame, with_length
from mmjax.data.sound.reading import read_sound
from tests.data.sounds import encoded, tone

STEREO = tone(channels=2)


@pytest.mark.parametrize(
  "form, codec, tolerance", [("WAV", None, 1e-4), ("WAV", "FLOAT", 0), ("FLAC", None, 1e-4), ("OGG", "VORBIS", 0.1)]
)
def test_a_file_is_read_as_the_mean_of_its_channels_at_its_rate(form, codec, tolerance, tmp_path):
  data = encoded(STEREO, form, rate=22050, codec=codec)
  clip = read_sound(data)
  assert clip.rate == 22050 and clip.samples.dtype == np.float32 and clip.samples.shape == (len(STEREO),)
  assert np.abs(clip.samples - STEREO.mean(axis=1)).max() <= tolerance + 1e-7
  (tmp_path / "a.bin").write_bytes(data)  # the extension does not matter
  np.testing.assert_array_equal(read_sound(tmp_path / "a.bin").samples, clip.samples)


def test_an_mp3_is_read():
  clip = read_sound(encoded(tone(), "MP3"))
  assert len(clip.samples) == len(tone()) and np.corrcoef(clip.samples, tone())[0, 1] > 0.95


@pytest.mark.parametrize("rate, channels", [(16000, 1), (44100, 2), (8000, 1)])
def test_an_mp3_with_a_variable_bit_rate_and_no_header_is_read_whole(rate, channels):
  samples = tone(1.0, rate=rate, channels=channels)
  data = encoded(samples, "MP3", rate=rate)
  first = _frame(data, 0)
  assert first is not None and data[first.body : first.body + 4] == b"Xing" and with_length(data, "r") is data
  bare = data[first.size :]
  clip, whole = read_sound(bare), read_sound(data)
  assert clip.rate == rate and len(clip.samples) >= len(whole.samples)
  mono = samples if channels == 1 else samples.mean(axis=1)
  delay = np.argmax(np.correlate(clip.samples, mono[: len(mono) // 2], "valid"))  # the header also has the delay
  assert np.corrcoef(clip.samples[delay : delay + len(mono)], mono[: len(clip.samples) - delay])[0, 1] > 0.9
  with pytest.raises(DataError, match=r"r: the sound is truncated: its last frame has \d+ of \d+ bytes"):
    read_sound(bare[:-20], record="r")


def test_tags_around_the_frames_of_an_mp3_are_no_frames():
  data = encoded(tone(), "MP3")
  bare = data[_frame(data, 0).size :]
  plain = read_sound(bare).samples
  tagged = b"ID3\3\0\0\0\0\1\x02" + bytes(130) + bare + b"TAG".ljust(128, b" ")
  np.testing.assert_array_equal(read_sound(tagged).samples, plain)


@pytest.mark.parametrize(
  "form, codec", [("WAV", None), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)]
)
@pytest.mark.parametrize("share", [0.002, 0.3, 0.9])
def test_a_truncated_file_is_refused(form, codec, share):
  data = encoded(tone(), form, codec=codec)
  with pytest.raises(DataError, match="clip 7: .*(truncated|corrupt|not a sound)"):
    read_sound(data[: int(len(data) * share)], record="clip 7")


def test_a_wav_whose_header_lies_is_refused_before_it_is_decoded(monkeypatch):
  data = bytearray(encoded(tone()))
  struct.pack_into("<I", data, 40, 2**31)
  monkeypatch.setitem(sys.modules, "soundfile", None)  # the decoder is not asked
  with pytest.raises(DataError, match="claims 2147483648 bytes of sound, and there are 16000"):
    read_sound(bytes(data))
  struct.pack_into("<I", data, 40, 2**32 - 1)
  with pytest.raises(DataError, match="does not say how long"):
    read_sound(bytes(data))


def test_a_long_clip_is_refused_or_cropped():
  bomb = encoded(np.zeros(2_000_000, np.float32), "FLAC")
  assert len(bomb) < 40_000  # 8 MB of samples
  with pytest.raises(DataError, match=r"clip 7: refused, it is 125 s long and the limit is 100 s"):
    read_sound(bomb, record="clip 7", max_seconds=100)
  assert len(read_sound(bomb, max_seconds=2, longer="crop").samples) == 32000
  with pytest.raises(DataError, match="refused"):
    read_sound((np.zeros(32000, np.float32), 16000), max_seconds=1)
  assert len(read_sound((np.zeros(32000, np.float32), 16000), max_seconds=1, longer="crop").samples) == 16000


@pytest.mark.parametrize(
  "data, message",
  [
    (lambda: encoded(np.zeros(0, np.float32)), "has no samples"),
    (lambda: encoded(np.full(99, np.nan, np.float32), codec="FLOAT"), "not finite"),
    (lambda: encoded(np.full(99, 32767.0, np.float32), codec="FLOAT"), "full scale is 1"),
    (lambda: encoded(np.zeros((99, 17), np.float32)), "17 channels"),
    (lambda: encoded(np.zeros(99, np.float32), rate=500), "500 samples a second"),
    (lambda: b"\x89PNG\r\n", "not a sound file"),
    (lambda: b"", "not a sound file"),
    (lambda: "missing.wav", "cannot read missing.wav: No such file"),
    (lambda: (np.zeros(9, np.int32), 16000), "int32"),
    (lambda: (np.zeros(9, np.float32), 0), "the rate is 0"),
    (lambda: (np.zeros(9, np.float32), 16000.5), "the rate is 16000.5"),
    (lambda: (np.array([np.inf]), 16000), "not finite"),
    (lambda: (np.zeros((2, 16000), np.float32), 16000), "16000 channels; up to 16 .*The order is .n, chan"),
    (lambda: (np.stack([tone(), -tone()], 1), 16000), "its channels cancel each other"),
    (lambda: encoded(np.stack([tone(), -tone()], 1), "FLAC"), "its channels cancel each other"),
  ],
)
def test_what_is_no_sound_is_refused_in_one_sentence_that_names_it(data, message):
  with pytest.raises(DataError, match=f"^clip 7: .*{message}"):
    read_sound(data(), record="clip 7")


def test_a_missing_codec_and_a_missing_library_are_named(monkeypatch):
  import soundfile

  data = encoded(tone(), "MP3")
  monkeypatch.setattr(soundfile, "available_formats", lambda: {"WAV": ""})
  with pytest.raises(DataError, match=r"clip 7: the installed libsndfile .* cannot read MP3"):
    read_sound(data, record="clip 7")
  monkeypatch.setitem(sys.modules, "soundfile", None)
  with pytest.raises(DataError, match=r"soundfile .*pip install 'mmjax\[sound\]'"):
    read_sound(data)


def test_silence_is_a_clip_whose_loudness_stays():
  assert not read_sound(encoded(np.zeros((100, 2), np.float32))).samples.any()
  silent = read_sound(encoded(np.zeros(100, np.float32))).samples
  np.testing.assert_array_equal(with_loudness(silent, -20), silent)


def test_int16_arrays_have_full_scale_at_32768():
  clip = read_sound((np.array([-32768, 0, 16384], np.int16), 8000))
  np.testing.assert_array_equal(clip.samples, [-1, 0, 0.5])


def test_resampling_keeps_a_tone():
  slow = resampled(Clip(tone(rate=8000), 8000), 16000)
  assert len(slow.samples) == 8000
  spectrum = np.abs(np.fft.rfft(slow.samples))
  assert abs(spectrum.argmax() * 16000 / 8000 - 440) < 2
  assert spectrum[2100:].max() < 1e-2 * spectrum.max()  # nothing above the old 4 kHz


def test_loudness_is_the_root_mean_square_in_decibels():
  scaled = with_loudness(tone(), -26.0)
  assert 20 * np.log10(np.sqrt(np.mean(np.square(scaled)))) == pytest.approx(-26, abs=1e-4)


def test_cutting_fills_up_with_zeros():
  np.testing.assert_array_equal(fitted(np.arange(5.0), 3, 1), [1, 2, 3])
  np.testing.assert_array_equal(fitted(np.arange(5.0), 4, 3), [3, 4, 0, 0])

"""The column of sounds: rows for training and for evaluation."""

import dataclasses
import logging

import numpy as np
import pytest

from mmjax.data import DataConfig, DataError, Sound, evaluation_batches
from mmjax.data.batching import Batcher
from mmjax.data.columns.sound import PADDED
from mmjax.data.loader import Loader
from mmjax.data.sound.augment import SoundAugmentation, noisy, shifted, warped
from mmjax.data.sound.features import Fbank, LogMel, WhisperMel, cmvn
from mmjax.data.transforms import ExampleRng
from tests.data.sounds import encoded, tone

MEL = LogMel(rate=8000, mels=12, window=200, hop=80, fft=256)
ALL = SoundAugmentation(
  shift=0.05, gain=6, noise=1.0, time_masks=1, time_width=4, band_masks=1, band_width=3, band_warp=0.2, band_gain=0.5
)


def records(count: int = 5):
  return [
    {"id": f"clip/{n}", "concept": n, "sound": encoded(tone(0.2 + 0.1 * n, rate=8000, hertz=300 + 50 * n), rate=8000)}
    for n in range(count)
  ]


def data(column: Sound, **fields) -> DataConfig:
  return DataConfig(columns={"audio": column}, **fields)


def batcher(column: Sound, source, **fields):
  return Batcher(data(column, **fields), source, None, 0, seed=3)


def row(column: Sound, samples: np.ndarray, rate: int = 8000) -> np.ndarray:
  return column.row({"id": "r", "sound": (samples, rate)}, None, None)


def test_a_row_is_the_features_of_the_middle_of_a_long_clip():
  column, clip = Sound(features=MEL, seconds=0.25), tone(1.0, rate=8000)
  found = row(column, clip)
  assert found.shape == (column.num_frames, 12) and found.dtype == np.float32
  np.testing.assert_array_equal(found, MEL(clip[3000:5000]))


def test_a_clip_is_resampled_to_the_rate_of_the_features():
  found = row(Sound(features=MEL, seconds=0.5), tone(0.5, rate=16000), 16000)
  near = row(Sound(features=MEL, seconds=0.5), tone(0.5, rate=8000))
  loudest = lambda values: values.mean(axis=0).argmax()
  assert found.shape == near.shape and loudest(found) == loudest(near)


def test_padding_is_silence_or_a_value_or_marked():
  clip = tone(0.2, rate=16000)
  silence = row(Sound(features=WhisperMel(), seconds=0.5), clip, 16000)
  np.testing.assert_array_equal(silence, WhisperMel()(np.pad(clip, (0, 8000 - len(clip)))))
  again = row(Sound(features=WhisperMel(), seconds=0.5, pad="repeat"), clip, 16000)  # twice, and 0.1 s of silence
  np.testing.assert_array_equal(again, WhisperMel()(np.pad(np.tile(clip, 2), (0, 8000 - 2 * len(clip)))))
  value = row(Sound(features=Fbank(), seconds=0.5, frames=60, pad="value"), clip, 16000)
  own = Fbank()(clip)
  np.testing.assert_array_equal(value[: len(own)], own)
  np.testing.assert_array_equal(value[len(own) :], np.float32(Fbank().padding))
  marked = row(Sound(features=MEL, seconds=0.5, pad="mask", normalize="clip"), tone(0.2, rate=8000))
  own = cmvn(MEL(tone(0.2, rate=8000)))
  np.testing.assert_array_equal(marked[: len(own)], own)
  assert (marked[len(own) :] == np.float32(PADDED)).all() and len(marked) > len(own)


def test_a_word_is_stretched_to_the_frames_of_a_row():
  clip, column = tone(0.2, rate=8000), Sound(features=MEL, seconds=0.5, frames=37, pad="stretch")
  own = MEL(clip)
  slow = [[np.interp(t * (len(own) - 1) / 36, np.arange(len(own)), band) for band in own.T] for t in range(37)]
  np.testing.assert_allclose(row(column, clip), slow, atol=1e-5)
  np.testing.assert_array_equal(row(column, clip[:1]), np.repeat(MEL(clip[:1]), 37, axis=0))  # one frame


def test_normalised_clips_are_padded_with_their_mean():
  found = row(Sound(features=Fbank(), seconds=0.5, pad="value", normalize="clip"), tone(0.2), 16000)
  np.testing.assert_array_equal(found[-3:], 0)


def test_loudness_makes_equal_what_was_recorded_at_other_levels():
  column = Sound(features=MEL, seconds=0.25, loudness=-26.0)
  np.testing.assert_allclose(row(column, tone(1.0, rate=8000)), row(column, 0.1 * tone(1.0, rate=8000)), atol=1e-4)
  assert np.isfinite(row(column, np.zeros(100, np.float32))).all()


def test_the_data_have_mean_0_and_deviation_1():
  column = Sound(features=MEL, seconds=0.25, normalize="data")
  source = records()
  learnt = column.fit(source)
  values = np.stack([column.row(record, None, learnt) for record in source])
  assert values.mean() == pytest.approx(0, abs=1e-4) and values.std() == pytest.approx(1, abs=1e-4)
  assert column.fits and not Sound().fits
  with pytest.raises(DataError, match="silence"):
    column.fit([{"id": "s", "sound": (np.zeros(2000, np.float32), 8000)}])


def test_training_rows_depend_on_seed_epoch_and_index_alone():
  column, source = Sound(features=MEL, seconds=0.25, augmentation=ALL), records()
  together = batcher(column, source)(np.array([1, 1, 1]), np.array([0, 3, 2])).batch["audio"]
  alone = batcher(column, source, cache_mb=0)(np.array([1]), np.array([3])).batch["audio"]
  np.testing.assert_array_equal(alone[0], together[1])
  rng = ExampleRng(3)(1, 3)
  np.testing.assert_array_equal(alone[0], column.row(source[3], rng, None))
  other = batcher(column, source)(np.array([2]), np.array([3])).batch["audio"]
  assert np.abs(other - alone).max() > 0.1


def test_a_resumed_loader_continues_with_the_same_rows():
  column, source = Sound(features=MEL, seconds=0.25, augmentation=ALL), records()
  make = lambda: Loader(data(column), source, None, image_size=0, batch_size=2, seed=5)
  first = make()
  batches = [next(first) for _ in range(4)]
  second = make()
  second.set_state({**first.get_state(), "step": 2})
  for batch in batches[2:]:
    np.testing.assert_array_equal(next(second)["audio"], batch["audio"])
  first.close()
  second.close()


@pytest.mark.parametrize("name", ["shift", "gain", "noise", "time_masks", "band_masks", "band_warp", "band_gain"])
def test_each_augmentation_changes_a_row(name):
  alone = dataclasses.replace(SoundAugmentation(), **{name: getattr(ALL, name)})
  plain, changed = (Sound(features=MEL, seconds=0.25, augmentation=each) for each in (SoundAugmentation(), alone))
  record = {"id": "r", "sound": (tone(0.25, rate=8000), 8000)}
  rows = [[column.row(record, ExampleRng(0)(0, n), None) for n in range(4)] for column in (plain, changed)]
  assert np.abs(np.subtract(*rows)).max() > 0.1


def test_hidden_ranges_are_as_wide_as_they_may_be():
  values = np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)
  changed, settings = values.copy(), SoundAugmentation(time_masks=2, time_width=5, band_masks=1, band_width=2)
  settings.features(changed, np.random.default_rng(1))
  frames, bands = ((changed != values).all(axis=axis).sum() for axis in (1, 0))
  assert 0 < frames <= 10 and bands <= 2
  assert np.ptp(changed[(changed != values)]) < 1e-6  # the mean of the clip


def test_warped_bands_have_what_other_bands_had():
  values = np.arange(5, dtype=np.float32)[None]
  np.testing.assert_allclose(warped(values, 0.75), [[0, 0.75, 1.5, 2.25, 3]])
  np.testing.assert_allclose(warped(values, 1.5), [[0, 1.5, 3, 4, 4]])
  with pytest.raises(ValueError, match="band_warp is 1"):
    SoundAugmentation(band_warp=1.0)


def test_a_filter_is_the_same_for_all_frames_and_within_its_gain():
  values = np.random.default_rng(0).normal(size=(6, 13)).astype(np.float32)
  changed = values.copy()
  SoundAugmentation(band_gain=0.5).features(changed, np.random.default_rng(1))
  filter = (changed - values)[0]
  np.testing.assert_allclose(changed - values, np.tile(filter, (6, 1)), atol=1e-6)
  assert 0.1 < np.abs(filter).max() <= 0.5 and np.abs(np.diff(filter, 2))[[0, 1, 2, 4, 5, 6, 8, 9, 10]].max() < 1e-6
  with pytest.raises(ValueError, match="band_gain is -1"):
    SoundAugmentation(band_gain=-1)


def test_noise_has_the_level_that_is_asked_for():
  clip = tone(4.0)
  noise = noisy(clip, 20.0, np.random.default_rng(0)) - clip
  assert 10 * np.log10(np.mean(clip**2) / np.mean(noise**2)) == pytest.approx(20, abs=0.1)


def test_a_shift_keeps_at_least_half():
  clip = np.arange(1.0, 9.0)
  np.testing.assert_array_equal(shifted(clip, 2), [0, 0, *clip])
  np.testing.assert_array_equal(shifted(clip, -2), clip[2:])
  np.testing.assert_array_equal(shifted(clip, -100), clip[4:])


def test_evaluation_has_no_randomness():
  column, source = Sound(features=MEL, seconds=0.25, augmentation=ALL), records()
  first, second = (
    next(iter(evaluation_batches(source, None, None, batch_size=8, columns={"audio": column}))) for _ in range(2)
  )
  np.testing.assert_array_equal(np.asarray(first["audio"]), np.asarray(second["audio"]))
  plain = dataclasses.replace(column, augmentation=SoundAugmentation())
  np.testing.assert_array_equal(np.asarray(first["audio"])[2], plain.row(source[2], None, None))


def test_a_bad_sound_is_named_or_skipped(caplog):
  from mmjax.evaluate.checked import decode_all, readable

  column, source = Sound(features=MEL, seconds=0.25), records()
  source[1] = source[1] | {"sound": source[1]["sound"][:200]}
  prepared = batcher(column, source)(np.array([0]), np.array([1]))
  assert "clip/1: the sound is truncated" in prepared.error
  prepared = batcher(column, source, on_bad_record="skip")(np.array([0]), np.array([1]))
  assert prepared.error is None and prepared.batch["index"].tolist() == [2]
  columns = {"audio": column}
  with pytest.raises(DataError, match="clip/1"):
    decode_all(source, columns, data(column))
  with caplog.at_level(logging.WARNING):
    good, places = readable(source.__getitem__, range(5), columns, data(column, on_bad_record="skip"))
  assert places == [0, 2, 3, 4] and len(good) == 4 and "clip/1" in caplog.text


def test_a_report_plays_and_draws_a_clip():
  html = Sound(features=MEL).show(records(1)[0])
  assert "data:audio/wav;base64," in html and "data:image/png;base64," in html


@pytest.mark.parametrize(
  "make",
  [
    lambda: Sound(seconds=0),
    lambda: Sound(seconds=700),
    lambda: Sound(frames=0),
    lambda: SoundAugmentation(noise=2),
    lambda: SoundAugmentation(shift=-1),
    lambda: SoundAugmentation(time_width=0),
    lambda: SoundAugmentation(noise_level=(30, 10)),
  ],
)
def test_settings_that_cannot_be_are_refused(make):
  with pytest.raises(ValueError, match="must"):
    make()

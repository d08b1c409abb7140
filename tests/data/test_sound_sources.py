"""Sources of sounds: folders of classes, files with captions, spoken digits."""

import csv

import numpy as np
import pytest

from mmjax.data import ClassFolders, DataConfig, DataError, Folder, Reading, Shards, Sound, SpokenDigits, make_source
from mmjax.data.__main__ import main
from mmjax.data.features import run_columns
from mmjax.data.shards.writer import write_shards
from mmjax.data.sound.clip import trimmed
from mmjax.data.sound.synthetic_voices import speaker, variants
from mmjax.data.spoken_digits import Spoken, load, real, save
from tests.data.shard_files import picture, tar_of
from tests.data.sounds import encoded, tone

FORMS = {"a.wav": "WAV", "b.flac": "FLAC", "c.ogg": "OGG", "d.mp3": "MP3"}


def written(folder):
  folder.mkdir(parents=True, exist_ok=True)
  for name, form in FORMS.items():
    (folder / name).write_bytes(encoded(tone(0.3), form))
  return folder


def test_folders_of_classes_with_sounds(tmp_path):
  for name in ("dog", "cat"):
    written(tmp_path / "train" / name)
  source = ClassFolders(path=str(tmp_path), media="sound")
  records = source.open("train", Reading())
  assert [record["label"] for record in records] == ["cat"] * 4 + ["dog"] * 4
  assert list(run_columns(DataConfig(source=source))) == ["audio", "text", "label"]
  row = source.columns["audio"].row(records[1], None, None)
  assert row.shape == (Sound().num_frames, 64)
  with pytest.raises(DataError, match="is not an image.*need --data.source.media sound"):
    ClassFolders(path=str(tmp_path)).open("train", Reading())


def test_a_file_of_captions_names_sounds(tmp_path):
  written(tmp_path / "clips")
  with (tmp_path / "metadata.csv").open("w") as file:
    csv.writer(file).writerows([("file_name", "caption"), *((f"clips/{name}", f"a tone {name}") for name in FORMS)])
  source = Folder(path=str(tmp_path), media="sound")
  records = make_source(DataConfig(source=source), "all")
  assert records[1]["captions"] == {"name": ["a tone b.flac"]} and records[1]["sound"][:4] == b"fLaC"
  assert "image" not in records[1] and list(source.columns) == ["audio", "text"]
  (tmp_path / "clips" / "c.ogg").unlink()
  with pytest.raises(DataError, match="there is no sound 'clips/c.ogg'"):
    source.open("all", Reading())


@pytest.mark.parametrize("form", ["webdataset", "arrayrecord"])
def test_shards_of_sounds_are_written_inspected_and_read(form, tmp_path, capsys):
  written(tmp_path / "in")
  rows = [("path", "caption"), *((name, f"a tone {name}") for name in FORMS)]
  (tmp_path / "in" / "captions.csv").write_text("".join(f"{a},{b}\n" for a, b in rows))
  options = ["--media", "sound", "--dir", str(tmp_path)]
  assert main(["shard", str(tmp_path / "in"), str(tmp_path / "out"), "--format", form, *options]) == 0
  (path,) = (tmp_path / "out").glob("0*")
  source = Shards((str(path),), media="sound")
  records = source.open("all", Reading(str(tmp_path)))
  contents = [(tmp_path / "in" / name).read_bytes() for name in FORMS]
  assert [(records[place]["sound"], records[place]["captions"]["name"]) for place in range(4)] == [
    (content, [f"a tone {name}"]) for content, name in zip(contents, FORMS, strict=True)
  ]
  assert list(run_columns(DataConfig(source=source))) == ["audio", "text"]
  assert main(["inspect", str(path), "--read", *options]) == 0
  assert "4 records, 4 of them read and decoded" in capsys.readouterr().out


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("a.m4a", b"x", "a sound, but .m4a is not read. Convert it to .flac or .wav"),
    ("a.bin", encoded(tone(0.1)), "its content is a sound, but its name does not end in .flac, .wav or the like"),
    ("a.jpg", b"x", "a: has no sound"),
    ("a.wav", b"x" * 60_000, "a.wav: 60000 bytes; 1 to 50000 are accepted"),
  ],
)
def test_tars_without_the_sound_of_a_record_are_refused(name, content, message, tmp_path):
  path = tar_of(tmp_path / "x.tar", [("a.txt", b"a tone"), (name, content)])
  with pytest.raises(DataError, match=message):
    Shards((str(path),), media="sound").open("all", Reading(str(tmp_path), max_bytes=50_000))


def test_a_tar_of_pictures_and_sounds_is_read_as_either(tmp_path):
  members = [("a.png", picture(1)), ("a.wav", encoded(tone(0.1))), ("a.txt", b"a tone")]
  path = tar_of(tmp_path / "x.tar", members)
  for media, content in (("image", members[0][1]), ("sound", members[1][1])):
    record = Shards((str(path),), media=media).open("all", Reading(str(tmp_path)))[0]
    assert record[media] == content and {"image", "sound"} & set(record) == {media}


def test_samples_in_memory_are_not_written_to_shards(tmp_path):
  record = {"sound": (tone(0.1), 16000), "captions": {"name": ["a"]}, "id": "r", "concept": 0}
  with pytest.raises(DataError, match="r: has no encoded sound"):
    list(write_shards([record], tmp_path, format="webdataset", per_shard=1, media="sound"))
  with pytest.raises(DataError, match="r: a sound in a shard is WAV, FLAC, Ogg or MP3"):
    list(write_shards([record | {"sound": b"x"}], tmp_path, format="webdataset", per_shard=1, media="sound"))


def test_silence_at_the_ends_is_cut_off():
  clip = np.concatenate([np.zeros(800), 0.5 * np.sin(np.arange(1600)), np.zeros(800)]).astype(np.float32)
  kept = trimmed(clip, 8000)
  assert 1600 <= len(kept) <= 1600 + 2 * 240
  np.testing.assert_array_equal(trimmed(np.zeros(100, np.float32), 8000), np.zeros(100))


def test_synthetic_voices_differ_and_are_found():
  speak, names = speaker(), variants()
  assert len(names) > 50
  first, other = (speak("five", f"en+{name}", 160, 50) for name in (names[0], names[7]))
  assert first.rate == 22050 and 0.1 < first.seconds < 2
  assert len(other.samples) != len(first.samples) or np.abs(other.samples - first.samples).max() > 0.01
  with pytest.raises(DataError, match="no voice 'xx\\+nobody'"):
    speak("five", "xx+nobody", 160, 50)


def test_digits_train_on_synthetic_voices_and_are_tested_on_real_ones(tmp_path):
  source, reading = SpokenDigits(spoken=("en",), voices=2, takes=1, root=str(tmp_path)), Reading(dir=str(tmp_path))
  train, test = source.open("train", reading), source.open("validation", reading)
  assert [record["label"] for record in train] == [str(n) for n in range(10)] * 2
  assert [record["label"] for record in test] == [str(n) for n in range(10)]
  speakers = [{record["speaker"] for record in records} for records in (train, test)]
  assert speakers[1] == {"captcha"} and not speakers[0] & speakers[1]
  again = source.open("train", reading)  # from the file
  assert again.fingerprint == train.fingerprint
  np.testing.assert_array_equal(again[3]["sound"][0], train[3]["sound"][0])
  shuffled = SpokenDigits(spoken=("en",), voices=2, takes=1, root=str(tmp_path), shuffled=True).open("train", reading)
  assert [r["label"] for r in shuffled] != [r["label"] for r in train] and shuffled.fingerprint != train.fingerprint


def test_synthetic_voices_are_held_out(tmp_path):
  source, reading = SpokenDigits(spoken=("en",), voices=4, takes=1, test="synthetic"), Reading(dir=str(tmp_path))
  speakers = [{record["speaker"] for record in source.open(split, reading)} for split in ("train", "validation")]
  assert [len(names) for names in speakers] == [3, 1] and not speakers[0] & speakers[1]


def test_installed_packages_are_read_and_speakers_held_out(tmp_path):
  folder = tmp_path / "usr/share/asterisk/sounds"
  for voice in ("en_US_f_Allison", "it_IT_m_Carlo"):
    (folder / voice / "digits").mkdir(parents=True)
    for digit in range(10):
      (folder / voice / "digits" / f"{digit}.wav").write_bytes(encoded(tone(0.3, rate=8000), rate=8000))
  (folder / "es/digits").mkdir(parents=True)
  (folder / "es/digits/5.gsm").write_bytes(encoded(tone(0.3, rate=8000), "RAW", rate=8000, codec="GSM610"))
  found = real(tmp_path)
  names = {one.speaker for one in found}
  assert names == {"captcha", "Allison (en)", "Carlo", "Colombia"} and len(found) == 31
  source = SpokenDigits(voices=1, takes=1, root=str(tmp_path), real_speakers=True, held_out=("Carlo", "captcha"))
  train = source.open("train", Reading(dir=str(tmp_path)))
  test = source.open("validation", Reading(dir=str(tmp_path)))
  assert {r["speaker"] for r in test} == {"Carlo", "captcha"} and len(train) == 50 + 11
  assert not {r["speaker"] for r in test} & {r["speaker"] for r in train}


@pytest.mark.parametrize(
  "fields, split, message",
  [
    (dict(spoken=("xx",)), "train", "Unknown language of spoken digits 'xx'"),
    (dict(), "heldout", "Unknown split"),
    (dict(held_out=("Nobody",)), "validation", "No recording of a real voice"),
    (dict(real_speakers=True), "train", "needs --data.source.held-out"),
  ],
)
def test_what_cannot_be_opened_is_named(fields, split, message, tmp_path):
  with pytest.raises(DataError, match=message):
    SpokenDigits(root=str(tmp_path), **fields).open(split, Reading(dir=str(tmp_path)))


def test_recordings_are_saved_whole_and_a_damaged_file_is_named(tmp_path):
  spoken = [Spoken(n, "en", "s", np.arange(n + 2, dtype=np.int16)) for n in range(3)]
  save(tmp_path / "x.npz", spoken)
  for one, two in zip(load(tmp_path / "x.npz"), spoken, strict=True):
    assert one[:3] == two[:3] and one.samples.tolist() == two.samples.tolist()
  (tmp_path / "x.npz").write_bytes(b"PK")
  with pytest.raises(DataError, match="x.npz is damaged"):
    load(tmp_path / "x.npz")

"""Shards: what is read, mixed, split, resumed; and what happens where they are damaged."""

import dataclasses
import gc
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from mmjax.data import DataConfig, DataError, Reading, Shards, TokenizerConfig, make_loader, make_source, make_tokenizer
from mmjax.data.__main__ import main
from mmjax.data.shards.open_files import MAX_OPEN
from mmjax.data.shards.paths import expand
from tests.data.changed import with_source
from tests.data.shard_files import number_of, picture, shards, tar_of

FORMATS = {"webdataset": "tar", "arrayrecord": "array_record"}


@pytest.fixture(params=FORMATS)
def four_shards(tmp_path, request):
  """A brace pattern of four shards of 10, 10, 10 and 7 records, numbered 0 to 36."""
  shards(tmp_path / "data", range(37), format=request.param)
  return f"{tmp_path}/data/{{00000..00003}}.{FORMATS[request.param]}"


@pytest.fixture
def config(tmp_path, four_shards):
  tokenizer = TokenizerConfig(vocab_size=300, max_length=8)
  return DataConfig(source=Shards((four_shards,)), dir=str(tmp_path / "cache"), tokenizer=tokenizer, cache_mb=0)


def opened(*patterns, directory, reading=None, **settings):
  return Shards(tuple(map(str, patterns)), **settings).open("all", Reading(str(directory), **reading or {}))


def numbers(source):
  return [number_of(source[index]) for index in range(len(source))]


def stream(config, number, *, source=None, batch_size=8, **options):
  """The indices of the first batches, and the loader."""
  source = source or make_source(config, "train")
  tokenizer = make_tokenizer(config, source)
  options = {"process_index": 0, "process_count": 1, "seed": 3, **options}
  loader = make_loader(config, source, tokenizer, image_size=8, batch_size=batch_size, **options)
  return list(itertools.islice(loader, number)), loader


def indices(batches):
  return np.concatenate([batch["index"] for batch in batches]).tolist()


def test_every_record_comes_back_in_order(tmp_path, four_shards):
  source = opened(four_shards, directory=tmp_path)
  assert numbers(source) == list(range(37))
  record = source[12]
  assert record["captions"] == {"name": ["number 12"]} == source.captions(12)
  assert "00001" in record["id"] and "000000012" in record["id"]
  assert source[3]["concept"] == opened(four_shards, directory=tmp_path)[3]["concept"] != source[4]["concept"]
  with pytest.raises(IndexError):
    source[37]


def test_one_in_twenty_is_held_out_unless_there_are_validation_shards(tmp_path, caplog):
  shards(tmp_path / "a", range(45), per_shard=25)
  config = DataConfig(source=Shards((f"{tmp_path}/a/*.tar",)), dir=str(tmp_path / "cache"))
  held_out = numbers(make_source(config, "validation"))
  assert held_out == [19, 44]
  assert numbers(make_source(config, "train")) == [n for n in range(45) if n not in held_out]
  shards(tmp_path / "b", range(100, 103))
  own = with_source(config, validation=(f"{tmp_path}/b/*.tar",), repeats=(2,))
  assert numbers(make_source(own, "train")) == list(range(45))
  assert numbers(make_source(own, "validation")) == [100, 101, 102]
  (tmp_path / "c.tar").symlink_to(tmp_path / "a" / "00001.tar")
  for name in (f"{tmp_path}/a/*.tar", f"{tmp_path}/a/../a/00001.tar", f"{tmp_path}/c.tar"):
    caplog.clear()
    make_source(with_source(config, validation=(name,)), "train")
    assert re.search(
      r"[12] shards are in --data.source.patterns and in --data.source.validation.*0000[01].tar", caplog.text
    )
  caplog.clear()
  make_source(own, "train")
  assert not caplog.text
  elsewhere = with_source(config, validation=(f"{tmp_path}/none/*.tar",))
  assert len(make_source(elsewhere, "train")) == 45, "where the validation shards are not"


def test_an_epoch_has_every_record_once_over_all_shards(config):
  batches, loader = stream(config, 10)
  first, second = indices(batches)[:37], indices(batches)[37:74]
  assert sorted(first) == list(range(37)) == sorted(second) and first != second
  assert loader.num_records == 37
  assert len({index // 10 for index in first[:8]}) > 2, "the first batch is of one shard: not shuffled across them"


def test_it_resumes_in_the_middle_of_a_shard_with_other_workers(config):
  _, loader = stream(config, 2)
  state = loader.get_state()
  expected = list(itertools.islice(loader, 6))
  _, other = stream(dataclasses.replace(config, workers=1), 0)
  other.set_state(state)
  try:
    for batch, again in zip(expected, itertools.islice(other, 6)):
      for name in batch:
        np.testing.assert_array_equal(batch[name], again[name])
  finally:
    other.close()


def test_processes_split_each_batch_without_overlap(config):
  whole, _ = stream(config, 4)
  parts = [stream(config, 4, process_index=index, process_count=4)[0] for index in range(4)]
  for step, batch in enumerate(whole):
    joined = [index for part in parts for index in part[step]["index"].tolist()]
    assert joined == batch["index"].tolist()


def test_weights_set_the_share_of_each_pattern_and_each_has_its_own_epochs(tmp_path):
  shards(tmp_path / "a", range(29))
  shards(tmp_path / "b", range(29, 35))
  patterns = (f"{tmp_path}/a/*.tar", f"{tmp_path}/b/*.tar")
  config = DataConfig(source=Shards(patterns, weights=(3, 1)), dir=str(tmp_path / "cache"))
  config = dataclasses.replace(config, tokenizer=TokenizerConfig(vocab_size=300, max_length=8))
  source = make_source(config, "train")
  assert len(source) == 35
  batches, _ = stream(config, 29, source=source, batch_size=4)
  for batch in batches:  # 3 of the first to 1 of the second, in every batch
    assert sorted(batch["index"] >= 29) == [False, False, False, True]
  of_a = [index for index in indices(batches) if index < 29]
  assert sorted(of_a[:29]) == sorted(of_a[29:58]) == list(range(29)) and of_a[:29] != of_a[29:58]
  _, again = stream(config, 5, source=make_source(config, "train"), batch_size=4)
  state = again.get_state()
  again.set_state(state)
  assert indices(itertools.islice(again, 3)) == indices(batches[5:8])


def test_repeats_bring_a_pattern_more_often_in_an_epoch_and_differently_augmented(tmp_path):
  shards(tmp_path / "a", range(10))
  shards(tmp_path / "b", range(10, 13))
  patterns = (f"{tmp_path}/a/*.tar", f"{tmp_path}/b/*.tar")
  config = DataConfig(source=Shards(patterns, repeats=(1, 2)), dir=str(tmp_path / "cache"))
  config = dataclasses.replace(config, tokenizer=TokenizerConfig(vocab_size=300, max_length=8))
  (batch,), loader = stream(config, 1, batch_size=16)
  assert loader.num_records == 16
  assert sorted(batch["index"].tolist()) == sorted([*range(10), *range(10, 13), *range(10, 13)])
  twice = batch["image"][batch["index"] == 11]
  assert len(twice) == 2 and (twice[0] != twice[1]).any()


def test_other_shards_are_no_continuation(tmp_path, config):
  _, loader = stream(config, 1)
  shards(tmp_path / "other", range(37), per_shard=19)
  other = with_source(config, patterns=(f"{tmp_path}/other/*",))
  _, loader_of_others = stream(other, 0)
  assert loader_of_others.num_records == loader.num_records
  with pytest.raises(DataError, match="fingerprint"):
    loader_of_others.set_state(loader.get_state())


def test_brace_patterns_and_globs(tmp_path):
  for name in ("a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"):
    (tmp_path / name).touch()
  assert [p.name for p in expand(f"{tmp_path}/{{b,a}}-{{0..2}}.tar")] == [
    f"{x}-{n}.tar" for x in "ba" for n in range(3)
  ]
  assert [p.name for p in expand(f"{tmp_path}/*-0.tar")] == ["a-0.tar", "b-0.tar"]
  assert [p.name for p in expand("x{008..010}")] == ["x008", "x009", "x010"]
  with pytest.raises(DataError, match=r"matches no file.*quote it"):
    expand(f"{tmp_path}/*.zip")
  for pattern in ("a{0..2.tar", "a}{", "{3..1}", "{0..99999999999}", "{0..999}{0..999}{0..999}"):
    with pytest.raises(DataError, match="braces|range|more than"):
      expand(pattern)


def test_a_missing_or_truncated_shard_is_named_or_skipped(config, caplog):
  paths = expand(config.source.patterns[0])
  paths[1].unlink()
  data = paths[2].read_bytes()
  paths[2].write_bytes(data[: len(data) * 2 // 3])
  with pytest.raises(DataError, match=r"00001.*there is no such shard.*--data.on-bad-record skip"):
    make_source(config, "all")
  skipping = make_source(dataclasses.replace(config, on_bad_record="skip"), "all")
  assert skipping.num_skipped == 2 and "00001" in caplog.text and "00002" in caplog.text
  found = numbers(skipping)
  assert [n for n in found if n < 20 or n >= 30] == [*range(10), *range(30, 37)]
  middle = [n for n in found if 20 <= n < 30]
  if paths[0].suffix == ".tar":  # what came before the cut is whole; an ArrayRecord's index is at its end
    assert middle == list(range(20, 20 + len(middle))) and 0 < len(middle) < 10
    assert f"the {len(middle)} records before are complete" in caplog.text
  else:
    assert not middle
  paths[1].touch()
  with pytest.raises(DataError, match=r"00001.*(it is empty|not a complete)"):
    make_source(config, "all")


def test_a_damaged_record_is_named_or_replaced(config, caplog):
  path = expand(config.source.patterns[0])[1]
  data = bytearray(path.read_bytes())
  place = data.find(picture(13)) + 20
  data[place : place + 30] = bytes(30)
  path.write_bytes(data)
  with pytest.raises(DataError, match="00001"):
    stream(config, 5)
  with caplog.at_level(logging.WARNING):
    batches, loader = stream(dataclasses.replace(config, on_bad_record="skip"), 5)
  assert loader.num_bad_records > 0 and 13 not in indices(batches) and "00001" in caplog.text


def test_a_shard_that_changes_under_the_run_is_noticed(tmp_path):
  (path,) = shards(tmp_path / "a", range(10))
  source = opened(path, directory=tmp_path)
  data = path.read_bytes()
  path.write_bytes(data[512:])
  with pytest.raises(DataError, match=r"it has changed since it was indexed"):
    source[4]
  path.write_bytes(data[:600])
  with pytest.raises(DataError, match=r"it has changed since it was indexed.*delete .*\.index"):
    source[4]
  path.write_bytes(data)
  assert number_of(opened(path, directory=tmp_path)[4]) == 4


def test_captions_of_all_forms_are_read(tmp_path):
  members = [
    ("a.jpg", picture(0, "JPEG")), ("a.txt", "ein Bär\n".encode()),
    ("d/b.webp", picture(1, "WEBP")), ("d/b.json", json.dumps({"caption": ["one", "two"], "url": 3}).encode()),
    ("c.txt", b"text"), ("c.PNG", picture(2)), ("c.json", json.dumps({"caption": "json", "alt": "other"}).encode()),
  ]  # fmt: skip
  path = tar_of(tmp_path / "x.tar", members)
  source = opened(path, directory=tmp_path)
  assert [source[index]["captions"]["name"] for index in range(3)] == [["ein Bär"], ["one", "two"], ["text"]]
  assert [source[index]["image"][:2] for index in range(3)] == [b"\xff\xd8", b"RI", b"\x89P"]
  by_field = opened(path, directory=tmp_path, caption_key="alt")
  assert by_field[2]["captions"]["name"] == ["other"]
  with pytest.raises(DataError, match=r"b.json.*has no field alt"):
    by_field[1]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_writer_are_read(tmp_path, format):
  name = "folder/" * 12 + "é" * 30 if format != tarfile.USTAR_FORMAT else "folder/" * 12 + "k"
  members = [
    (f"{name}{n}.{kind}", data)
    for n in range(3)
    for kind, data in (("png", picture(n)), ("txt", f"number {n}".encode()))
  ]
  assert numbers(opened(tar_of(tmp_path / "x.tar", members, format=format), directory=tmp_path)) == [
    0,
    1,
    2,
  ]


def test_records_without_a_half_are_counted(tmp_path, caplog):
  members = [("a.png", picture(0)), ("b.png", picture(1)), ("b.txt", b"number 1"), ("c.txt", b"c"), ("d.cls", b"7")]
  members += [("e.png", b""), ("e.txt", b"e"), ("f.png", bytes(2000)), ("f.txt", b"f")]
  path = tar_of(tmp_path / "x.tar", members)
  with pytest.raises(DataError, match=r"x.tar.*a: has no caption"):
    opened(path, directory=tmp_path, reading=dict(max_bytes=1000))
  source = opened(path, directory=tmp_path, reading=dict(max_bytes=1000, on_bad_record="skip"))
  assert numbers(source) == [1] and source.num_skipped == 4
  for message in ("a: has no caption", "c: has no image", "e.png: 0 bytes", "f.png: 2000 bytes; 1 to 1000"):
    assert message in caplog.text


def test_many_shards_are_read_through_few_descriptors(tmp_path):
  shards(tmp_path / "a", range(MAX_OPEN + 20), per_shard=1)
  source = opened(f"{tmp_path}/a/*.tar", directory=tmp_path / "cache")
  assert numbers(source) == list(range(MAX_OPEN + 20))
  assert numbers(source) == list(range(MAX_OPEN + 20))
  assert len(source._files._files) == MAX_OPEN
  before = len(os.listdir("/proc/self/fd"))
  del source
  gc.collect()
  assert len(os.listdir("/proc/self/fd")) <= before - MAX_OPEN, "they are not closed with the source"


def test_an_index_is_made_once_and_again_when_the_shard_changes(tmp_path):
  (path,) = shards(tmp_path / "a", range(5))
  opened(path, directory=tmp_path)
  (index,) = (tmp_path / "shards").iterdir()
  made = index.stat().st_mtime_ns
  opened(path, directory=tmp_path)
  assert index.stat().st_mtime_ns == made
  assert index.stat().st_size < 300 + 5 * 25
  tar_of(path, [("a.png", picture(9)), ("a.txt", b"number 9")])
  assert numbers(opened(path, directory=tmp_path)) == [9]
  for index in (tmp_path / "shards").iterdir():
    index.write_bytes(b"nonsense\n")
  with pytest.raises(DataError, match=r"index .* is damaged.*Delete it"):
    opened(path, directory=tmp_path)


def test_processes_may_index_the_same_shards_at_once(tmp_path):
  shards(tmp_path / "a", range(40), per_shard=8)
  code = (
    "from mmjax.data import Reading, Shards\n"
    f"print(len(Shards(('{tmp_path}/a/*.tar',)).open('all', Reading('{tmp_path}/cache'))))"
  )
  running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
  assert [process.communicate()[0].strip() for process in running] == ["40"] * 3
  assert not list((tmp_path / "cache" / "shards").glob("*.partial"))


def test_bad_settings_are_named(tmp_path):
  (path,) = shards(tmp_path / "a", range(3))
  config = DataConfig(source=Shards((str(path),)), dir=str(tmp_path))
  for fields, message in (
    ({"patterns": ()}, r"needs --data.source.patterns"),
    ({"weights": (1.0,), "repeats": (1,)}, r"Give one of them"),
    ({"weights": (1.0, 2.0)}, r"--data.source.weights has 2 numbers for 1 patterns"),
    ({"repeats": (0,)}, r"--data.source.repeats must be above 0"),
    ({"weights": (float("nan"),)}, r"--data.source.weights must be above 0"),
  ):
    with pytest.raises(DataError, match=message):
      make_source(with_source(config, **fields), "train")
  with pytest.raises(DataError, match=r"has no record in this split.*--data.source.validation"):
    make_source(config, "validation")
  with pytest.raises(DataError, match=r"Did you mean 'train'"):
    make_source(config, "tain")
  (tmp_path / "x.zip").touch()
  with pytest.raises(DataError, match=r"x.zip: shards are .tar or .array_record"):
    opened(tmp_path / "x.zip", directory=tmp_path)


@pytest.mark.parametrize("format", ["webdataset", "arrayrecord"])
def test_the_splits_of_a_folder_are_shards_of_their_own(tmp_path, capsys, format):
  names = [f"{number}.png" for number in range(6)]
  for number, name in enumerate(names):
    (tmp_path / name).write_bytes(picture(number))
  rows = "".join(f"{name},caption {name},{('train', 'test', 'Training')[n % 3]}\n" for n, name in enumerate(names))
  (tmp_path / "captions.csv").write_text("image,caption,Split\n" + rows)
  out = tmp_path / "out"
  assert main(["shard", str(tmp_path), str(out), "--format", format]) == 0
  assert (
    f"--data.source.patterns '{out}/train/*' --data.source.validation '{out}/validation/*'" in capsys.readouterr().out
  )
  source = Shards((f"{out}/train/*",), validation=(f"{out}/validation/*",))
  found = {
    split: [r["captions"]["name"][0] for r in source.open(split, Reading(str(tmp_path / "cache")))]
    for split in ("train", "validation")
  }
  assert found == {split: [f"caption {n}.png" for n in places] for split, places in
                   (("train", (0, 2, 3, 5)), ("validation", (1, 4)))}  # fmt: skip
  (tmp_path / "captions.csv").write_text("image,caption\n0.png,a\n1.png,b\n")
  assert main(["shard", str(tmp_path), str(tmp_path / "one"), "--format", format]) == 0
  assert [path.suffix[:4] for path in (tmp_path / "one").iterdir()] == [{"webdataset": ".tar"}.get(format, ".arr")]


def test_a_shard_of_a_set_that_is_not_there_is_named(tmp_path):
  """One shard of three by itself is not all of them; a part of those that are there may be chosen."""
  shards(tmp_path / "data", range(30), format="webdataset")
  for number in range(3):
    (tmp_path / f"data/0000{number}.tar").rename(tmp_path / f"data/x-0000{number}-of-00003.tar")
  cache = tmp_path / "cache"
  assert len(opened(f"{tmp_path}/data/x-00000-of-00003.tar", directory=cache)) == 10
  (tmp_path / "data/x-00002-of-00003.tar").unlink()
  with pytest.raises(
    DataError, match=r"x-00002-of-00003.tar: the names of the shards beside it .*--data.on-bad-record"
  ):
    opened(f"{tmp_path}/data/*.tar", directory=cache)
  source = opened(f"{tmp_path}/data/*.tar", directory=cache, reading={"on_bad_record": "skip"})
  assert (len(source), source.num_skipped) == (20, 1)

"""The column of videos: rows for training and for evaluation, and sources of videos."""

import csv
import dataclasses
import logging

import numpy as np
import pytest
from PIL import Image

from mmjax.data import (
  AugmentationConfig,
  ClassFolders,
  DataConfig,
  DataError,
  Folder,
  Reading,
  Shards,
  Video,
  eval_transform,
  evaluation_batches,
  make_source,
)
from mmjax.data.__main__ import main
from mmjax.data.batching import Batcher
from mmjax.data.columns.video import PADDED
from mmjax.data.features import run_columns
from mmjax.data.shards.writer import write_shards
from tests.data.videos import animated, clip, encoded, number

SIZE = 8
STILL = AugmentationConfig(crop_scale=(1.0, 1.0), rotation=0, brightness=0, contrast=0, saturation=0, background=0)
ALL = AugmentationConfig(rotation=20, shear=5, flip=0.5, hue=0.2, greyscale=0.3, cutout=1.0)
CLIPS = [{"id": f"clip/{n}", "concept": n, "video": encoded(clip(10 + 10 * n))} for n in range(3)]


def rows(column: Video, records=CLIPS, *, epoch: int = 0, seed: int = 3, **fields) -> np.ndarray:
  data = DataConfig(columns={"video": column}, **fields)
  prepared = Batcher(data, records, None, SIZE, seed)(np.full(len(records), epoch), np.arange(len(records)))
  assert prepared.error is None, prepared.error
  return prepared.batch["video"]


def evaluated(column: Video, records=CLIPS) -> np.ndarray:
  transform = eval_transform(DataConfig(), SIZE)
  (batch,) = evaluation_batches(records, transform, None, batch_size=len(records), columns={"video": column})
  return np.asarray(batch["video"])


def numbers(frames: np.ndarray) -> list[int]:
  """Numbers of normalised frames of `clip`; -1 for padding."""
  return [-1 if frame[0, 0, 0] < PADDED / 2 else number((frame + 1) * 127.5) for frame in frames]


def test_rows_are_the_middles_of_equal_segments_in_training_and_evaluation():
  column = Video(frames=5, augmentation=STILL)
  training, evaluation = rows(column), evaluated(column)
  assert training.shape == evaluation.shape == (3, 5, SIZE, SIZE, 3) and evaluation.dtype == np.float32
  for found in (training, evaluation):
    assert numbers(found[0]) == [1, 3, 5, 7, 9] and numbers(found[2]) == [3, 9, 15, 21, 27]


def test_short_clips_are_masked_or_repeat_their_last_frame():
  masked, repeated = (evaluated(Video(frames=12, short=short))[0] for short in ("mask", "repeat"))
  assert numbers(masked) == [*range(10), -1, -1] and (masked[10:] == PADDED).all()
  assert numbers(repeated) == [*range(10), 9, 9]


def test_random_frames_depend_on_seed_epoch_and_index_alone():
  column = Video(frames=4, sampling="random", augmentation=STILL)
  first = rows(column)
  np.testing.assert_array_equal(first, rows(column))
  assert numbers(rows(column, epoch=1)[2]) != numbers(first[2]) != numbers(rows(column, seed=4)[2])
  assert sorted(numbers(first[2])) == numbers(first[2])
  np.testing.assert_array_equal(rows(column, CLIPS[:2]), first[:2])
  assert numbers(evaluated(column)[2]) == [3, 11, 18, 26]  # evaluation has no randomness


def test_all_frames_of_a_clip_change_in_the_same_way():
  noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
  records = [{"id": str(n), "concept": n, "video": np.stack([noise] * 4)} for n in range(2)]
  column = Video(frames=4, augmentation=ALL)
  found = rows(column, records)
  np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1], found.shape))
  assert np.abs(found[0] - found[1]).max() > 0.1 < np.abs(found[0] - evaluated(column, records)[0]).max()


def test_shuffled_order_is_fixed_and_keeps_the_padding_last():
  plain, shuffled = (numbers(evaluated(Video(frames=12, order=order))[0]) for order in ("time", "shuffled"))
  assert shuffled != plain and sorted(shuffled[:10]) == plain[:10] and shuffled[10:] == [-1, -1]
  assert numbers(rows(Video(frames=12, order="shuffled", augmentation=STILL))[0]) == shuffled


def test_bad_clips_name_their_record_and_are_skipped(caplog):
  records = [CLIPS[0], {**CLIPS[1], "video": CLIPS[1]["video"][:900]}, CLIPS[2]]
  data = DataConfig(columns={"video": Video(frames=4)})
  strict = Batcher(data, records, None, SIZE, 0)
  assert "clip/1: the video is truncated" in strict(np.zeros(3, int), np.arange(3)).error
  skipping = Batcher(dataclasses.replace(data, on_bad_record="skip"), records, None, SIZE, 0)
  with caplog.at_level(logging.CRITICAL):
    prepared = skipping(np.zeros(3, int), np.arange(3))
  assert prepared.batch["index"].tolist() == [0, 2, 2] and len(prepared.bad) == 1
  with pytest.raises(DataError, match="clip/1"):
    Video(frames=4).decode(records[1], data)


@pytest.mark.parametrize("fields", [{"frames": 0}, {"rate": 0.0}, {"max_frames": 0}, {"max_pixels": 0}])
def test_settings_out_of_range_are_refused(fields):
  with pytest.raises(ValueError, match=next(iter(fields))):
    Video(**fields)


def test_items_and_drawings():
  column = Video(frames=3)
  assert column.record("a.mp4") == {"video": "a.mp4", "id": "the video"}
  html = column.show({"id": "x", "video": animated(clip(4))})
  assert html.startswith("<img") and "3 frames of 0.16 s" in html and "data:image/webp;base64," in html


def test_a_file_of_captions_names_videos_and_folders_of_frames(tmp_path):
  (tmp_path / "frames").mkdir()
  for place, frame in enumerate(clip(5)):
    Image.fromarray(frame).save(tmp_path / "frames" / f"{place}.png")
  (tmp_path / "a.mp4").write_bytes(encoded(clip(10)))
  (tmp_path / "b.webp").write_bytes(animated(clip(5)))
  with (tmp_path / "captions.csv").open("w") as file:
    csv.writer(file).writerows(
      [("video", "caption"), *((name, f"of {name}") for name in ("a.mp4", "b.webp", "frames"))]
    )
  source = Folder(path=str(tmp_path), media="video")
  records = make_source(DataConfig(source=source), "all")
  assert list(source.columns) == ["video", "text"] and records[2]["captions"] == {"name": ["of frames"]}
  found = evaluated(Video(frames=5), [records[place] for place in range(3)])
  assert [numbers(each) for each in found] == [[1, 3, 5, 7, 9], [*range(5)], [*range(5)]]
  with pytest.raises(DataError, match="no image 'frames'"):
    Folder(path=str(tmp_path), image_key="video").open("all", Reading())


def test_folders_of_classes_with_videos(tmp_path):
  for name in ("walk", "run"):
    (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "train" / name / "a.webp").write_bytes(animated(clip(3)))
  source = ClassFolders(path=str(tmp_path), media="video")
  records = source.open("train", Reading())
  assert [record["label"] for record in records] == ["run", "walk"] and next(iter(source.columns)) == "video"
  assert numbers(evaluated(Video(frames=3), [records[0]])[0]) == [0, 1, 2]


@pytest.mark.parametrize("form", ["webdataset", "arrayrecord"])
def test_shards_of_videos_are_written_inspected_and_read(form, tmp_path, capsys):
  (tmp_path / "in").mkdir()
  contents = {"a.mp4": encoded(clip(6)), "b.mkv": encoded(clip(6), "matroska"), "c.webp": animated(clip(3))}
  for name, content in contents.items():
    (tmp_path / "in" / name).write_bytes(content)
  rows = [("path", "caption"), *((name, f"a clip {name}") for name in contents)]
  (tmp_path / "in" / "captions.csv").write_text("".join(f"{a},{b}\n" for a, b in rows))
  options = ["--media", "video", "--dir", str(tmp_path)]
  assert main(["shard", str(tmp_path / "in"), str(tmp_path / "out"), "--format", form, *options]) == 0
  (path,) = (tmp_path / "out").glob("0*")
  source = Shards((str(path),), media="video")
  records = source.open("all", Reading(str(tmp_path)))
  assert [(records[place]["video"], records[place]["captions"]["name"]) for place in range(3)] == [
    (content, [f"a clip {name}"]) for name, content in contents.items()
  ]
  assert list(run_columns(DataConfig(source=source))) == ["video", "text"]
  assert main(["inspect", str(path), "--read", *options]) == 0
  assert "3 records, 3 of them read and decoded" in capsys.readouterr().out
  with pytest.raises(DataError, match="a video in a shard is MP4, WebM, MKV, GIF or animated WebP"):
    list(write_shards([records[0] | {"video": b"x"}], tmp_path, format="webdataset", per_shard=1, media="video"))

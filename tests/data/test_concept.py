"""Duplicates: images with the same set of captions, and no others."""

import json

import pytest
from PIL import Image

from mmjax.data import (
  Coco,
  DataConfig,
  Flickr30k,
  Folder,
  Shards,
  captions_concept,
  concept_number,
  make_source,
  write_captions,
)
from mmjax.data.shards.writer import write_shards
from tests.golden.sources import picture, write

CAPTIONS = [["photo", "a cat"], ["photo", "a dog"], ["a Cat", "photo"], ["photo"], ["Photo"]]
SAME = [(0, 2), (3, 4)]


def folder(path):
  for number in range(len(CAPTIONS)):
    Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(path / f"{number}.png")
  rows = [json.dumps({"image": f"{n}.png", "caption": texts}) for n, texts in enumerate(CAPTIONS)]
  (path / "captions.jsonl").write_text("\n".join(rows))
  return Folder(str(path))


def shards(path, kind):
  records = [dict(image=picture(n), captions={"name": t}, id=str(n), concept=0) for n, t in enumerate(CAPTIONS)]
  list(write_shards(records, path / "shards", format=kind, per_shard=9))
  return Shards((f"{path}/shards/*",))


def coco(path):
  for n in range(len(CAPTIONS)):
    write(path / "train2017" / f"{n}.jpg", picture(n, "JPEG"))
  content = {
    "images": [{"id": n, "file_name": f"{n}.jpg"} for n in range(len(CAPTIONS))],
    "annotations": [{"image_id": n, "caption": text} for n, texts in enumerate(CAPTIONS) for text in texts],
  }
  write(path / "annotations" / "captions_train2017.json", content)
  return Coco(str(path))


def flickr30k(path):
  for n in range(len(CAPTIONS)):
    write(path / "flickr30k-images" / f"{n}.jpg", picture(n, "JPEG"))
  images = [
    {"filename": f"{n}.jpg", "split": "train", "sentences": [{"raw": text} for text in texts]}
    for n, texts in enumerate(CAPTIONS)
  ]
  write(path / "dataset_flickr30k.json", {"images": images})
  return Flickr30k(str(path))


SOURCES = {
  "folder": folder,
  "tar": lambda path: shards(path, "webdataset"),
  "array_record": lambda path: shards(path, "arrayrecord"),
  "coco": coco,
  "flickr30k": flickr30k,
}


@pytest.mark.parametrize("name", SOURCES)
def test_images_are_one_concept_by_all_their_captions_and_not_by_the_first(name, tmp_path):
  split = "all" if name in ("folder", "tar", "array_record") else "train"
  source = make_source(DataConfig(source=SOURCES[name](tmp_path), dir=str(tmp_path / "cache")), split)
  found = [source[n]["concept"] for n in range(len(source))]
  equal = [(a, b) for a in range(len(found)) for b in range(a + 1, len(found)) if found[a] == found[b]]
  assert equal == SAME


def test_a_class_name_is_a_concept_as_before():
  assert captions_concept(["Big Cat"]) == captions_concept(["big cat"] * 2) == concept_number("big cat")
  assert captions_concept(["a", "b"]) == captions_concept(["B", "a", "b"]) != captions_concept(["a b"])


def test_new_captions_make_new_concepts_where_captions_are_the_identity(tmp_path, emoji_config):
  source = folder(tmp_path)
  config = DataConfig(source=source, dir=str(tmp_path))
  write_captions(
    tmp_path / "new", [(n, make_source(config, "train")[n]["id"], {"name": [f"it is {n}"]}) for n in (3, 4)]
  )
  changed = make_source(DataConfig(source=source, captions_from=str(tmp_path / "new")), "train")
  assert changed[0]["concept"] != changed[1]["concept"] == captions_concept(["it is 4"])

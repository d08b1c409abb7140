"""A configuration for every source of data, over small files that are made where there are none."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data import (
  ClassFolders,
  Coco,
  DataConfig,
  EasyVqa,
  Flickr30k,
  Folder,
  InteractionFile,
  Scenes,
  Shards,
  TableFile,
  Texts,
  Tfds,
  TokenizerConfig,
  Vqav2,
  make_source,
  write_captions,
)
from mmjax.data.images.config import AugmentationConfig
from mmjax.data.shards.writer import write_shards

TOKENIZER = TokenizerConfig(vocab_size=384, max_length=12)
PAIRS = TokenizerConfig(vocab_size=384, max_length=24, cls_token="<cls>", sep_token="<sep>", mask_token="<mask>")
EVERYTHING = AugmentationConfig(shear=8.0, flip=0.5, hue=0.2, greyscale=0.3, background=0.7, cutout=0.5)
WORDS = "red green blue small big round square dog cat tree house boat".split()


def picture(number: int, kind: str = "PNG", size: tuple[int, int] = (96, 64)) -> bytes:
  """A smooth picture of many colours, another one for every number."""
  corners = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
  data = io.BytesIO()
  Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR).save(data, kind)
  return data.getvalue()


def sentence(number: int) -> str:
  return " ".join(np.random.default_rng(1000 + number).choice(WORDS, 3).tolist()) + f" {number}"


def write(path: Path, content: bytes | Any) -> None:
  """Bytes as they are, a text, or anything else as JSON."""
  path.parent.mkdir(parents=True, exist_ok=True)
  text = content if isinstance(content, str | bytes) else json.dumps(content)
  path.write_bytes(text if isinstance(text, bytes) else text.encode())


class GoldenPictures(tfds.core.GeneratorBasedBuilder):
  """Twelve pictures, each with a sentence."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "sentence": tfds.features.Text()}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {"train": self._generate_examples(range(9)), "test": self._generate_examples(range(9, 12))}

  def _generate_examples(self, numbers):
    for number in numbers:
      yield number, {"image": io.BytesIO(picture(number)), "sentence": sentence(number)}


def tfds_(folder: Path) -> dict[str, Any]:
  GoldenPictures(data_dir=str(folder / "cache")).download_and_prepare(file_format="array_record")
  return dict(source=Tfds("golden_pictures", caption_key="sentence"))


def folder_(folder: Path) -> dict[str, Any]:
  """PNG and JPEG, one or two captions, with and without a split."""
  rows = []
  for number in range(12):
    kind, ending = (("PNG", "png"), ("JPEG", "jpg"))[number % 2]
    write(folder / f"{number}.{ending}", picture(number, kind))
    captions = [sentence(number), sentence(50 + number)][: 1 + number % 3 // 2]
    rows.append({"image": f"{number}.{ending}", "caption": captions, "split": "val" if number > 9 else "train"})
  write(folder / "captions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
  return dict(source=Folder(str(folder)))


def shards_(folder: Path, kind: str = "webdataset", **settings: Any) -> dict[str, Any]:
  """Two patterns, of 25 and of 22 records, in shards of 10."""
  ending = {"webdataset": "tar", "arrayrecord": "array_record"}[kind]
  for name, numbers in (("a", range(25)), ("b", range(30, 52))):
    records: Any = [
      dict(image=picture(n, size=(24, 16)), captions={"name": [sentence(n)]}, id=str(n), concept=n) for n in numbers
    ]
    list(write_shards(records, folder / name, format=kind, per_shard=10))
  list(write_shards(records[:3], folder / "c", format=kind, per_shard=10))
  one, two, held_out = (f"{folder}/{name}/*.{ending}" for name in "abc")
  return dict(source=Shards((one, two), validation=(held_out,), **settings))


def class_folders_(folder: Path) -> dict[str, Any]:
  for number in range(30):
    write(folder / ("red", "green_2", "blue")[number % 3] / f"{number}.jpg", picture(number, "JPEG"))
  return dict(source=ClassFolders(str(folder)), dir=str(folder.parent / "cache"))


def coco_(folder: Path) -> dict[str, Any]:
  for part, numbers in (("train", range(10)), ("val", range(10, 13))):
    for number in numbers:
      write(folder / f"{part}2017" / f"{number:012d}.jpg", picture(number, "JPEG"))
    content = {
      "images": [{"id": n, "file_name": f"{n:012d}.jpg", "height": 64, "width": 96} for n in numbers],
      "annotations": [
        {"image_id": n, "id": 10 * n + k, "caption": sentence(100 * k + n)} for k in range(3) for n in numbers
      ],
    }
    write(folder / "annotations" / f"captions_{part}2017.json", content)
  return dict(source=Coco(str(folder)))


def vqav2_(folder: Path) -> dict[str, Any]:
  """Three questions on each picture, with ten answers each."""
  said = ("yes", "no", "2", "red", "yes")
  for part, numbers in (("train2014", range(6)), ("val2014", range(6, 8))):
    asked = [(n, 1000 * n + k) for n in numbers for k in range(3)]
    for number in numbers:
      write(folder / part / f"COCO_{part}_{number:012d}.jpg", picture(number, "JPEG"))
    questions = [{"image_id": n, "question": f"is it {sentence(q)}?", "question_id": q} for n, q in asked]
    annotations = [
      {
        "image_id": n,
        "question_id": q,
        "multiple_choice_answer": said[q % 5],
        "answers": [{"answer": said[(q + k // 7) % 5], "answer_id": k + 1} for k in range(10)],
      }
      for n, q in asked
    ]
    write(folder / f"v2_OpenEnded_mscoco_{part}_questions.json", {"questions": questions})
    write(folder / f"v2_mscoco_{part}_annotations.json", {"annotations": annotations})
  return dict(source=Vqav2(str(folder)), num_answers=3)


def flickr30k_(folder: Path) -> dict[str, Any]:
  images = []
  for number in range(12):
    write(folder / "flickr30k-images" / f"{number}.jpg", picture(number, "JPEG"))
    sentences = [{"raw": sentence(100 * k + number)} for k in range(2)]
    images.append({"filename": f"{number}.jpg", "split": ("train", "train", "val")[number % 3], "sentences": sentences})
  write(folder / "dataset_flickr30k.json", {"images": images})
  return dict(source=Flickr30k(str(folder)))


def captions_from(folder: Path, emoji: DataConfig) -> dict[str, Any]:
  """Other captions for every third record."""
  source = make_source(emoji, "train")
  kept = [(n, source[n]["id"], {"name": [sentence(n)]}) for n in range(0, len(source), 3)]
  write_captions(folder / "captions.jsonl", kept)
  return dict(captions_from=str(folder / "captions.jsonl"))


def table_file_(folder: Path) -> dict[str, Any]:
  rows = ["picture,words,weight,colour"]
  for number in range(1, 31):
    write(folder / f"{number}.png", picture(number))
    cells = (f"{number}.png" if number % 7 else "", sentence(number) if number % 5 else "", number % 4 or "", "red")
    rows.append(",".join(map(str, cells)))
  write(folder / "table.csv", "\n".join(rows).encode())
  return dict(source=TableFile(str(folder / "table.csv"), image="picture", text="words"))


def interaction_file_(folder: Path) -> dict[str, Any]:
  """Interactions with the rows of `table_file_`, under the names that its table gives them."""
  items = ["name,picture,words"]
  for number in range(1, 10):
    write(folder / f"{number}.png", picture(number))
    items.append(f"i{number},{number}.png,{sentence(number)}")
  rows = [f"u{n % 6},i{n * 5 % 9 + 1},{100 - n // 6}" for n in range(40)]
  write(folder / "items.csv", "\n".join(items).encode())
  write(folder / "log.csv", "\n".join(["user,name,time", *rows]).encode())
  table = TableFile(str(folder / "items.csv"), image="picture", text="words")
  return dict(source=InteractionFile(path=str(folder / "log.csv"), item="name", items=table, history=3, other=True))


def texts_files(folder: Path) -> dict[str, Any]:
  for number in range(30):
    write(folder / f"{number}.txt", f"{sentence(number)}\n{sentence(50 + number)}\n\n{sentence(number)}\nthe end\n")
  return dict(source=Texts(corpus="files", path=str(folder)), tokenizer=PAIRS)


def scenes(text: Any) -> dict[str, Any]:
  return dict(source=Scenes(text=text, size=16, examples=60))


CASES = {
  "emoji": lambda folder, emoji: {},
  "emoji, two views": lambda folder, emoji: dict(views=2),
  "emoji, every augmentation": lambda folder, emoji: dict(augmentation=EVERYTHING, trim=True),
  "emoji, wrong captions": lambda folder, emoji: dict(corrupt_captions=0.3),
  "emoji, captions of a file": captions_from,
  "tfds": lambda folder, emoji: tfds_(folder),
  "folder": lambda folder, emoji: folder_(folder),
  "shards": lambda folder, emoji: shards_(folder),
  "shards, weights": lambda folder, emoji: shards_(folder, weights=(3.0, 1.0)),
  "shards, ArrayRecord, repeats": lambda folder, emoji: shards_(folder, "arrayrecord", repeats=(1, 2)),
  "scenes, questions": lambda folder, emoji: scenes("question"),
  "scenes, captions": lambda folder, emoji: scenes("caption"),
  "easy_vqa": lambda folder, emoji: dict(source=EasyVqa()),
  "table_file": lambda folder, emoji: table_file_(folder / "table"),
  "interaction_file": lambda folder, emoji: interaction_file_(folder / "log"),
  "texts": lambda folder, emoji: dict(source=Texts(examples=60), tokenizer=PAIRS),
  "texts, files": lambda folder, emoji: texts_files(folder),
  "class_folders": lambda folder, emoji: class_folders_(folder / "images"),
  "coco": lambda folder, emoji: coco_(folder),
  "vqav2": lambda folder, emoji: vqav2_(folder),
  "flickr30k": lambda folder, emoji: flickr30k_(folder),
}
"""(an empty folder, the configuration of the emoji) -> the fields of the case's configuration."""


def config_of(case: str, folder: Path, emoji: DataConfig) -> DataConfig:
  """The configuration of a case; `emoji` is a configuration whose emoji are built already."""
  fields = CASES[case](folder, emoji)
  if case.startswith("emoji"):
    return dataclasses.replace(emoji, **fields)
  plain: Any = dict(dir=str(folder / "cache"), tokenizer=TOKENIZER)
  return DataConfig(**(plain | fields))

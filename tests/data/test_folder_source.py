"""A user's own pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from mmjax.data import DataConfig, DataError, Folder, Reading, TokenizerConfig, make_loader, make_source, make_tokenizer


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "sub").mkdir()
  for number, name in enumerate(["a.png", "b.jpg", "sub/c.webp"]):
    Image.new("RGB", (20, 10), (number * 100, 0, 0)).save(tmp_path / name)
  return tmp_path


def records(folder, split="all", on_bad_record="error", **settings):
  return Folder(str(folder), **settings).open(split, Reading(on_bad_record=on_bad_record))


def write(folder, text, name="captions.csv"):
  (folder / name).write_text(text, encoding="utf-8")
  return folder


GOOD = 'image,caption\na.png,a cat\nb.jpg,"a dog, asleep"\nsub/c.webp,Ein Käse\n'


def test_a_folder_trains_with_two_settings(folder):
  config = DataConfig(
    source=Folder(str(write(folder, GOOD))),
    dir=str(folder / "cache"),
    tokenizer=TokenizerConfig(vocab_size=300),
  )
  source = make_source(config, "all")
  tokenizer = make_tokenizer(config, source)
  batch = next(make_loader(config, source, tokenizer, image_size=8, batch_size=5))
  assert batch["image"].shape == (5, 8, 8, 3) and set(batch["index"]) == {0, 1, 2}
  assert tokenizer.decode(tokenizer(["a dog, asleep"])[0]).strip() == "a dog, asleep"


@pytest.mark.parametrize("image", ["image", "file_name", "filename", "filepath"])
@pytest.mark.parametrize("caption", ["caption", "text", "title"])
def test_usual_columns_are_found(folder, image, caption):
  write(folder, f"id,{caption},{image}\n1,a cat,a.png\n", "metadata.csv")
  (record,) = records(folder)
  assert record["captions"] == {"name": ["a cat"]}
  assert record["id"] == str(folder / "a.png") and record["image"] == (folder / "a.png").read_bytes()


def test_other_columns_and_files_can_be_named(folder):
  write(folder, "pic,words\na.png,a cat\n", "list.csv")
  (record,) = records(folder, captions_file="list.csv", image_key="pic", caption_key="words")
  assert record["captions"]["name"] == ["a cat"]


def test_a_picture_may_have_several_captions(folder):
  write(folder, "image,caption\na.png,a cat\nb.jpg,a dog\na.png,a small cat\n")
  first, second = records(folder)
  assert first["captions"]["name"] == ["a cat", "a small cat"] and second["captions"]["name"] == ["a dog"]
  rows = [{"image": "a.png", "caption": ["one", "two"]}, {"image": "b.jpg", "caption": ["TWO", "one"]}]
  (folder / "captions.csv").unlink()
  write(folder, "\n".join(map(json.dumps, rows)) + "\n\n", "captions.jsonl")
  first, second = records(folder)
  assert first["captions"]["name"] == ["one", "two"]
  assert first["concept"] == second["concept"], "the same captions mean the same thing"


def test_a_second_caption_file_is_not_passed_over_without_a_word(folder, caplog):
  write(write(folder, GOOD), "file_name,text\na.png,x\n", "metadata.csv")
  assert len(records(folder)) == 3
  assert "captions.csv is read and metadata.csv is not: name another with --data.source.captions-file" in caplog.text
  caplog.clear()
  assert len(records(folder, captions_file="metadata.csv")) == 1 and not caplog.text


def test_a_byte_order_mark_does_no_harm(folder):
  (folder / "captions.csv").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
  assert len(records(folder)) == 3


@pytest.mark.parametrize("header", ["image,caption,split", "Image,CAPTION, Split ", "File_Name,Text,SPLIT"])
def test_the_split_column_decides(folder, header):
  """Also where its name, or that of another usual column, is in another case of letters."""
  write(folder, header + "\na.png,a,train\nb.jpg,b,val\nsub/c.webp,c,TRAIN\n")
  names = {s: [record["id"].rpartition("/")[2] for record in records(folder, s)] for s in ("train", "validation")}
  assert names == {"train": ["a.png", "c.webp"], "validation": ["b.jpg"]}


def test_without_it_a_hash_keeps_one_in_twenty(folder):
  names = [f"{number}.png" for number in range(2000)]
  for name in names:
    (folder / name).touch()
  write(folder, "image,caption\n" + "".join(f"{name},x\n" for name in names))
  train, validation = ({r["id"] for r in records(folder, s)} for s in ("train", "validation"))
  assert train.isdisjoint(validation) and len(train) + len(validation) == 2000
  assert 70 <= len(validation) <= 130
  write(folder, "image,caption\n" + "".join(f"{name},x\n" for name in reversed(names)))
  assert {r["id"] for r in records(folder, "validation")} == validation, "the order of the rows does not matter"


@pytest.mark.parametrize(
  "text, name, message",
  [
    (
      "image,caption\na.png,a\nb.jpg, \n",
      "captions.csv",
      r"captions.csv, line 3: the field 'caption' is empty",
    ),
    ("image,caption\na.png\n", "captions.csv", r"line 2: 1 fields, and the header has 2"),
    ("image,caption\nnone.png,a\n", "captions.csv", r"line 2: there is no image 'none.png' in "),
    ("image,caption\n,a\n", "captions.csv", r"line 2: there is no image ''"),
    (
      "picture,caption\na.png,a\n",
      "captions.csv",
      r"none of the columns image, .*only 'picture', 'caption'.*--data.source.image-key",
    ),
    (
      "image,words\na.png,a\n",
      "captions.csv",
      r"none of the columns caption, text, title, captions.*--data.source.caption-key",
    ),
    ("image,caption\n", "captions.csv", r"captions.csv lists no image of the split 'all'"),
    ("", "captions.csv", r"line 1: none of the columns image, .*only an empty line"),
    ('{"image": "a.png"\n', "captions.jsonl", r"captions.jsonl, line 1: not JSON"),
    ("[1]\n", "captions.jsonl", r"line 1: JSON, but not an object"),
    ('{"image": "a.png", "caption": []}\n', "captions.jsonl", r"line 1: the field 'caption' is empty"),
    ('{"image": "a.png", "caption": null}\n', "captions.jsonl", r"line 1: the field 'caption' is empty"),
    (
      '{"image": "a.png", "caption": "x"}\n{"image": "a.png"}\n',
      "captions.jsonl",
      r"line 2: none of the columns caption",
    ),
  ],
)
def test_what_is_wrong_is_named_by_file_line_and_field(folder, text, name, message):
  with pytest.raises(DataError, match=message):
    records(write(folder, text, name))


def test_bad_rows_are_skipped_on_request(folder, caplog):
  write(folder, "image,caption\na.png,a\nb.jpg,\nnone.png,c\n")
  source = make_source(DataConfig(source=Folder(str(folder)), on_bad_record="skip"), "all")
  assert len(source) == 1 and source.num_skipped == 2
  assert "line 3" in caplog.text and "none.png" in caplog.text


def test_bad_encodings_and_folders_are_named(folder, tmp_path):
  with pytest.raises(DataError, match=r"is not a directory"):
    records(tmp_path / "nowhere")
  with pytest.raises(DataError, match=r"has no captions.csv or captions.tsv or .*columns image and caption"):
    records(folder)
  with pytest.raises(DataError, match=r"has no other.csv"):
    records(folder, captions_file="other.csv")
  (folder / "captions.csv").write_bytes(b"image,caption\na.png,\xff\xfe\n")
  with pytest.raises(DataError, match=r"Cannot read .*captions.csv.*UTF-8"):
    records(folder)
  write(folder, GOOD)
  with pytest.raises(DataError, match=r"there is no column 'pic'.*--data.source.image-key"):
    records(folder, image_key="pic")
  with pytest.raises(DataError, match=r"Did you mean 'train'"):
    records(folder, "tain")
  with pytest.raises(DataError, match=r"needs --data.source.path DIR"):
    make_source(DataConfig(source=Folder()), "train")


def test_a_directory_that_may_not_be_read_is_named(folder, monkeypatch):
  def refuse(path):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr("pathlib.Path.is_file", refuse)  # tests may run as root, whom nothing is forbidden
  with pytest.raises(DataError, match=r"Cannot read the directory .*Permission denied"):
    records(folder)


def test_a_picture_that_vanished_is_named(folder):
  source = records(write(folder, GOOD))
  (folder / "b.jpg").unlink()
  with pytest.raises(DataError, match=r"Cannot read .*b.jpg"):
    source[1]
  assert np.array_equal([source[0]["concept"]], [records(folder, on_bad_record="skip")[0]["concept"]])

"""Pointers of Git LFS and pages of HTML in place of files are named, wherever a file is read."""

import json

import pytest

from mmjax.data import Coco, DataError, Folder, Reading, TableFile
from mmjax.data.images.decoding import decode
from mmjax.data.shards.record import parse_json, parse_text
from mmjax.data.sound.reading import _decoded as sound
from mmjax.interop.fields import read_json
from tests.data.shard_files import picture

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
PAGES = (POINTER, b"<!DOCTYPE html>\n<html><body>404</body></html>", b"\xef\xbb\xbf <HTML lang=en>", b"<html>")
SAID = "is a (pointer of Git LFS|page of HTML) in place of the file. (Run git lfs pull|Download it again)"


@pytest.mark.parametrize("data", PAGES)
def test_each_reader_names_what_stands_in_place_of_a_file(tmp_path, data):
  for read in (parse_text, parse_json):
    with pytest.raises(DataError, match="^x.tar, a: " + SAID):
      read(data, "x.tar, a")
  with pytest.raises(DataError, match="^row 7: " + SAID):
    decode(data, record="row 7", max_pixels=100)
  with pytest.raises(DataError, match="^row 7: " + SAID):
    sound(data, "row 7", 1.0, "")
  for file, source in (("captions.csv", Folder(str(tmp_path))), ("t.csv", TableFile(str(tmp_path / "t.csv")))):
    (tmp_path / file).write_bytes(data)
    with pytest.raises(DataError, match=f"{file} {SAID}"):
      source.open("all", Reading())
  (tmp_path / "annotations").mkdir()
  (tmp_path / "train2017").mkdir()
  (tmp_path / "annotations/captions_train2017.json").write_bytes(data)
  with pytest.raises(DataError, match=f"captions_train2017.json: {SAID}"):
    Coco(str(tmp_path)).open("train", Reading())
  (tmp_path / "config.json").write_bytes(data)
  with pytest.raises(ValueError, match=f"config.json {SAID}"):
    read_json(tmp_path / "config.json")


@pytest.mark.parametrize("text", ["<br>", "<a cat>", "html", "version https", "a page: <html>"])
def test_a_text_with_marks_is_a_text(text):
  assert parse_text(text.encode(), "x") == [text]
  assert parse_json(json.dumps({"caption": text}).encode(), "x") == [text]
  decode(picture(1), record="row 7", max_pixels=10_000)

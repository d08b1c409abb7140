"""The emoji data set: its builder, its source and its command line."""

import importlib.util
import io
import sys

import numpy as np
import pytest
from PIL import Image

from mmjax.data import DataError, Emoji, Reading, emoji, make_source, splits
from mmjax.data.emoji_draw import VENDORS, draw
from mmjax.data.emoji_text import catalogue
from mmjax.data.sources.emoji import is_flag
from tests.data.changed import with_source

NUM_EMOJI = 62  # what a limit of 60 gives: every 65th of each split


@pytest.fixture(scope="module")
def all_vendors(emoji_config):
  return with_source(emoji_config, vendors=VENDORS)


def test_no_artist_trains_on_a_held_out_concept(all_vendors):
  train, held_out = (make_source(all_vendors, split) for split in ("train", "heldout"))
  assert len(train) and len(held_out)
  concepts = {record["concept_group"] for record in held_out.records}
  assert concepts.isdisjoint(record["concept_group"] for record in train.records)
  assert all(splits.is_held_out(concept) for concept in concepts)
  assert not any(splits.is_held_out(record["concept_group"]) for record in train.records)
  assert len(make_source(all_vendors, "all")) == len(train) + len(held_out) == 3 * NUM_EMOJI


def test_artists_draw_the_same_emoji_differently(all_vendors):
  source = make_source(all_vendors, "all")
  codes = {vendor: [r["codepoint"] for r in source.records if r["vendor"] == vendor] for vendor in VENDORS}
  assert codes["twemoji"] == codes["openmoji"] == codes["noto"] == sorted(codes["noto"])
  for index in range(0, len(source), 20):
    others = source.siblings(index)
    pictures = {source[other]["image"] for other in (index, *others)}
    assert len(others) == 2 and len(pictures) == 3
    assert {source[other]["codepoint"] for other in others} == {source[index]["codepoint"]}


def test_records_say_what_they_are(train_source):
  for record in train_source.records:
    image = Image.open(io.BytesIO(record["image"]))
    assert (image.mode, image.size) == ("RGBA", (72, 72))
    assert np.asarray(image)[..., 3].max() == 255, "an empty picture"
    assert record["id"] == f"{record['vendor']}/{record['codepoint']}"
    assert record["skin_tone"] == splits.has_skin_tone(record["codepoint"])
    assert is_flag(record) == (record["group"] == "flags")
  assert any(is_flag(record) for record in train_source.records)


def test_skin_tones_and_languages_can_be_left_out(all_vendors):
  config = with_source(all_vendors, skin_tones=False, languages=("de",))
  source = make_source(config, "all")
  assert 0 < len(source) < 3 * NUM_EMOJI
  assert all(set(record["captions"]) == {"name", "keywords", "de"} for record in source.records)


def test_only_the_groups_that_are_asked_for(emoji_config, train_source):
  people = make_source(with_source(emoji_config, groups=("people-and-body",)), "train")
  expected = [r["id"] for r in train_source.records if r["group"] == "people-and-body"]
  assert [record["id"] for record in people.records] == expected and 0 < len(expected) < len(train_source)


def test_tfds_reads_what_was_built(emoji_config, train_source):
  import tensorflow_datasets as tfds

  builder = emoji.build(emoji_config.dir, "twemoji", limit=60)
  data = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
  examples = {example["codepoint"].decode(): example for example in data}
  for record in train_source.records[: len(examples)]:
    example = examples[record["codepoint"]]
    assert example["image"] == record["image"]
    assert example["concept"] == record["concept"]
    assert [text.decode() for text in example["captions"]["de"]] == record["captions"]["de"]
  assert "tensorflow" not in sys.modules


def test_building_twice_draws_once(tmp_path, monkeypatch):
  emoji.build(tmp_path, "openmoji", limit=3)
  monkeypatch.setattr("mmjax.data.emoji_builder.draw", lambda *_: pytest.fail("drawn again"))
  assert emoji.build(tmp_path, "openmoji", limit=3).info.splits.total_num_examples == 4


def test_command_line_builds_every_artist(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["emoji", "--dir", str(tmp_path), "--limit", "20"])
  emoji.main()
  lines = capsys.readouterr().out.splitlines()
  assert [line.partition(":")[0] for line in lines if "images in" in line] == list(VENDORS)


def test_noto_draws_an_emoji_as_one_glyph():
  (person,) = (item for item in catalogue() if item.text == "👩🏻‍🚀")
  pixels = np.asarray(Image.open(io.BytesIO(draw(person, "noto"))))
  assert pixels[..., 3].any(axis=0).sum() <= 72  # two glyphs side by side would be cut at both edges
  assert pixels[:, [0, 71], 3].max() == 0


@pytest.mark.parametrize(
  "split, settings, message",
  [
    ("all", {"vendors": ("twemojy",)}, "Unknown emoji vendor 'twemojy'. Did you mean 'twemoji'"),
    ("all", {"languages": ("dee",)}, "Unknown caption language 'dee'. Did you mean 'de'"),
    ("all", {"groups": ("people",)}, "Unknown emoji group 'people'.* Known: activities, .*, people-and-body, "),
    ("all", {"groups": ("flags",)}, "--data.source.groups flags: nothing is left to evaluate"),
    ("heldou", {}, "Unknown emoji split 'heldou'. Did you mean 'heldout'"),
    ("all", {"vendors": ()}, "--data.source.vendors names no artist"),
  ],
)
def test_wrong_names_are_answered_with_the_nearest(tmp_path, split, settings, message):
  with pytest.raises(DataError, match=message):
    Emoji(**settings).open(split, Reading(str(tmp_path)))


def test_missing_package_says_how_to_install_it(tmp_path, monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dynamic_font" else find(name))
  with pytest.raises(DataError, match=r"'dynamic-font', which is missing: pip install 'mmjax\[emoji\]'"):
    emoji.build(tmp_path, "noto", limit=2)


def test_unwritable_directory_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(DataError, match=r"Cannot build the emoji data in .*file.*--data.dir"):
    emoji.build(tmp_path / "file", "noto", limit=2)

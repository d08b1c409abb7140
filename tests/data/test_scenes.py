"""Generated scenes: every answer, caption and mask is found again from the picture's pixels alone."""

import dataclasses
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmjax.data import (
  DataConfig,
  DataError,
  Scenes,
  TokenizerConfig,
  eval_transform,
  evaluation_batches,
  make_loader,
  make_source,
  make_tokenizer,
)
from mmjax.data.batching import row_shapes
from mmjax.data.images.config import AugmentationConfig
from tests.data.changed import with_source

KINDS = ("colour", "row", "column", "shape", "count")
PLACES = ["first", "second", "third", "fourth"]
STILL = AugmentationConfig(
  crop_scale=(1, 1), crop_ratio=(1, 1), rotation=0, brightness=0, contrast=0, saturation=0, background=0
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  return DataConfig(
    source=Scenes(examples=900, questions=KINDS),
    dir=str(tmp_path_factory.mktemp("scenes")),
    tokenizer=TokenizerConfig(vocab_size=400, bos_token="<bos>"),
  )


@pytest.fixture(scope="module")
def source(config):
  return make_source(config, "train")


@pytest.fixture(scope="module")
def tokenizer(config, source):
  return make_tokenizer(config, source)


def pixels(encoded):
  return np.asarray(Image.open(io.BytesIO(encoded)))


def name_of(colour):
  """By the hue that a person would name, from red, green and blue alone."""
  red, green, blue = (int(channel) for channel in colour)
  if blue > red and blue > green:
    return "purple" if red > 100 else "blue"
  if green > red:
    return "green"
  return "red" if green < 80 else "orange" if green < 170 else "yellow"


def seen(picture):
  """(kind, colour, row, column, pixels) of every shape, from the picture's pixels."""
  cell = picture.shape[0] // 4
  shapes = []
  for row in range(4):
    for column in range(4):
      part = picture[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
      inked = (part != 255).any(axis=-1)
      if inked.any():
        colours = {tuple(colour) for colour in part[inked].tolist()}
        assert len(colours) == 1
        top, bottom = inked[0].sum(), inked[: cell - 1][-1].sum()
        kind = "square" if inked.sum() == (cell - 1) ** 2 else "triangle" if bottom == cell - 1 > 2 * top else "circle"
        where = np.zeros(picture.shape[:2], bool)
        where[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = inked
        shapes.append((kind, name_of(colours.pop()), row, column, where))
  return shapes


def reply(question, shapes):
  """The answer to a question, and the shapes it is about."""
  words = question.strip("?").split()
  if words[:2] == ["what", "colour"]:
    (shape,) = [shape for shape in shapes if shape[0] == words[-1]]
    return shape[1], [shape]
  if words[1] in ("row", "column"):
    (shape,) = [shape for shape in shapes if shape[0] == words[4]]
    return PLACES[shape[2 if words[1] == "row" else 3]], [shape]
  about = [shape for shape in shapes if shape[1] == words[-1]]
  return (["zero", "one", "two", "three"][len(about)] if words[0] == "how" else about[0][0]), about


def test_answers_captions_and_masks_are_what_the_pixels_say(source):
  for index in range(0, len(source), 3):
    record = source[index]
    shapes = seen(pixels(record["image"]))
    assert sorted(shape[0] for shape in shapes) == ["circle", "square", "triangle"]
    answer, about = reply(record["question"], shapes)
    assert record["answer"] == answer and record["answers"] == [answer], record["id"]
    expected = np.any([shape[4] for shape in about], axis=0) if about else np.zeros((32, 32), bool)
    np.testing.assert_array_equal(pixels(record["relevance"]), expected * np.uint8(255))
    (caption,) = record["captions"]["name"]
    said = {f"{colour} {kind} in the {PLACES[row]} row" for kind, colour, row, _, _ in shapes}
    assert set(caption.split(", ")) == said
  assert {len(seen(pixels(source[index]["image"]))) for index in range(20)} == {3}


def test_one_record_by_hand(config):
  record = make_source(config, "validation")[0]
  assert record["id"] == "scenes/heldout/0"
  assert record["question"] == "what colour is the circle?"
  assert record["answer"] == "red"


def test_sizes_and_balance(source, config):
  held_out = make_source(config, "validation")
  assert (len(source), len(held_out)) == (900, 150) and len(make_source(config, "all")) == 1050
  counts = Counter((source[index]["question"], source[index]["answer"]) for index in range(900))
  for question in {question for question, _ in counts}:
    numbers = [number for (asked, _), number in counts.items() if asked == question]
    assert max(numbers) - min(numbers) <= 1, f"a question alone tells nothing of its answer: {question}"
  assert len(counts) == 3 * 6 + 3 * 4 + 3 * 4 + 6 * 3 + 6 * 4, "every answer to every question"


def test_the_best_guess_without_a_look_is_the_calibrated_prior(tmp_path):
  source = make_source(DataConfig(source=Scenes(examples=1440), dir=str(tmp_path)), "train")
  records = [source[index] for index in range(len(source))]
  by_question = {}
  for record in records:
    by_question.setdefault(record["question"], Counter())[record["answer"]] += 1
  right = sum(max(counts.values()) for counts in by_question.values())
  assert right / len(records) == pytest.approx((1 / 6 + 1 / 4) / 2, abs=1e-9)
  picture_only = sum(max(_rows(record).values()) / 3 for record in records) / len(records) / 2
  assert picture_only == pytest.approx(0.28, abs=0.02), "the row that most shapes are in, for every question"


def _rows(record):
  return Counter(shape[2] for shape in seen(pixels(record["image"])))


def test_splits_share_no_picture(config):
  train, held_out = (make_source(config, split) for split in ("train", "heldout"))
  pictures = [{source[index]["image"] for index in range(len(source))} for source in (train, held_out)]
  assert not pictures[0] & pictures[1]


def test_the_same_settings_draw_the_same_and_another_seed_other_scenes(config, source, tmp_path):
  again = make_source(dataclasses.replace(config, dir=str(tmp_path)), "train")
  assert [again[index] for index in range(900)] == [source[index] for index in range(900)]
  other = with_source(config, seed=1, examples=60)
  pictures = {source[index]["image"] for index in range(900)}
  assert sum(make_source(other, "train")[index]["image"] in pictures for index in range(60)) < 6


def test_batches_hold_question_answer_and_mask(config, source, tokenizer):
  still = dataclasses.replace(config, augmentation=STILL)
  batch = next(make_loader(still, source, tokenizer, image_size=32, batch_size=64))
  shapes = {key: ((64, *shape), dtype) for key, (shape, dtype) in row_shapes(still, 32).items()}
  assert {key: (value.shape, value.dtype) for key, value in batch.items()} == shapes
  for row, index in enumerate(batch["index"]):
    record = source[int(index)]
    np.testing.assert_array_equal(batch["relevance"][row], pixels(record["relevance"]) / 255)
    assert tokenizer.answers[batch["answer"][row]] == record["answer"]
    np.testing.assert_array_equal(batch["text"][row], tokenizer([record["question"]])[0])
    assert batch["answer_text"][row, 0] == tokenizer.bos_id
    assert tokenizer.decode(batch["answer_text"][row]).strip() == record["answer"]


def test_evaluation_sees_the_same_entries_in_order(config, source, tokenizer):
  batches = list(evaluation_batches(source, eval_transform(config, 32), tokenizer, batch_size=512))
  assert [batch["valid"].sum() for batch in batches] == [512, 388]
  for row in (0, 7, 511):
    record = source[row]
    np.testing.assert_array_equal(batches[0]["relevance"][row], pixels(record["relevance"]) / 255)
    np.testing.assert_allclose(batches[0]["image"][row], pixels(record["image"]) / 127.5 - 1, atol=1e-6)
    assert tokenizer.answers[batches[0]["answer"][row]] == record["answer"]
  assert batches[1]["relevance"].shape == (512, 32, 32) and batches[1]["answer_text"].shape == (512, 8)


def test_masks_follow_the_picture_under_augmentation(config, source, tokenizer):
  moving = dataclasses.replace(STILL, crop_scale=(0.4, 1.3), crop_ratio=(0.7, 1.4), rotation=40.0, shear=15.0, flip=0.5)
  config = dataclasses.replace(config, augmentation=moving)
  batch = next(make_loader(config, source, tokenizer, image_size=96, batch_size=256))
  overlaps = []
  for picture, mask, index in zip(batch["image"], batch["relevance"], batch["index"].tolist()):
    shapes = seen(pixels(source[index]["image"]))
    _, about = reply(source[index]["question"], shapes)
    if len({shape[1] for shape in shapes}) == 3 and len(about) == 1:  # then the colour tells which shape a pixel shows
      ink = _colour(source[index], about[0]) / 127.5 - 2  # white plus this is the shape's colour
      share = (picture - 1) @ ink / (ink @ ink)
      shown = (share > 0.5) & (np.abs(picture - 1 - share[..., None] * ink).max(axis=-1) < 0.1)
      if shown.sum() > 100:
        overlaps.append((shown & (mask > 0)).sum() / (shown | (mask > 0)).sum())
      assert set(np.unique(mask)) <= {0.0, 1.0}
  assert len(overlaps) > 50 and min(overlaps) > 0.85 and np.mean(overlaps) > 0.97


def _colour(record, shape):
  return pixels(record["image"])[shape[4]][0]


@pytest.mark.parametrize(
  "change, message",
  [
    ({"trim": True}, r"field `relevance`.*--data.no-trim"),
    ({"views": 2}, r"--data.views 2 needs images with captions.*scenes"),
  ],
)
def test_settings_that_cannot_be_honoured_are_refused(config, source, tokenizer, change, message):
  with pytest.raises(DataError, match=message):
    make_loader(dataclasses.replace(config, **change), source, tokenizer, image_size=32, batch_size=4)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"question": " "}, r"scenes/train/\d+: the field 'question' is empty"),
    ({"answers": []}, r"the field 'answers' is empty"),
    ({"relevance": b"x"}, r"scenes/train/\d+, field 'relevance': cannot be read as an image"),
    ({"relevance": "small"}, r"the field 'relevance' is 4 x 4 pixels, its image 32 x 32"),
  ],
)
def test_bad_fields_are_named(config, source, tokenizer, change, message):
  small = io.BytesIO()
  Image.new("L", (4, 4)).save(small, "PNG")
  change = {"relevance": small.getvalue()} if change == {"relevance": "small"} else change

  class Broken(list):
    features = source.features

  records = Broken([source[0] | change])
  with pytest.raises(DataError, match=message):
    next(make_loader(config, records, tokenizer, image_size=32, batch_size=1))
  with pytest.raises(DataError, match=message):
    np.asarray(next(evaluation_batches(records, eval_transform(config, 32), tokenizer, batch_size=1))["relevance"])


def test_captions_in_place_of_questions(config):
  captions = with_source(config, text="caption")
  source = make_source(captions, "train")
  tokenizer = make_tokenizer(captions, source)
  assert tokenizer.answers == ()
  said = [frozenset(source[index]["captions"]["name"][0].split(", ")) for index in range(len(source))]
  meanings = {(texts, source[index]["concept"]) for index, texts in enumerate(said)}
  assert len(meanings) == len(set(said)) < 900, "scenes that the same words describe are one concept"
  batch = next(make_loader(captions, source, tokenizer, image_size=32, batch_size=4))
  assert batch.keys() == row_shapes(captions, 32).keys() == {"image", "text", "index", "concept"}
  for row, index in enumerate(batch["index"].tolist()):
    assert tokenizer.decode(batch["text"][row]).strip() == source[index]["captions"]["name"][0]


def test_captions_of_fewer_shapes_say_part_of_what_whole_ones_say(config):
  def said(shapes):
    source = make_source(with_source(config, examples=60, text="caption", caption_shapes=shapes), "train")
    return [source[index]["captions"]["name"][0].split(", ") for index in range(len(source))]

  one, two, three = said(1), said(2), said(3)
  assert [len(caption) for caption in (one[0], two[0], three[0])] == [1, 2, 3]
  assert [caption[:1] for caption in three] == one and [caption[:2] for caption in three] == two
  assert {caption[0].split()[1] for caption in one} == {"circle", "square", "triangle"}


@pytest.mark.parametrize("change", [{"size": 30}, {"size": 12}, {"examples": 0}, {"questions": ()}])
def test_impossible_scenes_are_refused(change):
  with pytest.raises(ValueError, match=rf"data.source.{next(iter(change))} is"):
    Scenes(**change)


def test_larger_pictures_show_the_same_scenes(config, source):
  large = make_source(with_source(config, examples=30, size=64), "train")
  for index in range(30):
    shapes, small = seen(pixels(large[index]["image"])), seen(pixels(source[index]["image"]))
    assert [shape[:4] for shape in shapes] == [shape[:4] for shape in small]


def test_unknown_splits_are_answered_with_the_nearest(config):
  with pytest.raises(DataError, match=r"Unknown scenes split 'validatoin'. Did you mean 'validation'"):
    make_source(config, "validatoin")

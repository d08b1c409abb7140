"""Texts with images among their words, and dialogues: ids, places, windows, files, and what is refused."""

import base64
import json

import numpy as np
import pytest

from mmjax.data import DataConfig, Dialogue, Documents, Interleaved, TokenizerConfig, make_tokenizer
from mmjax.data.batching import Batcher
from mmjax.data.columns.base import Evaluating
from mmjax.data.columns.interleaved import Piece
from mmjax.data.columns.video import PADDED
from mmjax.data.errors import DataError
from mmjax.data.scenes import png
from mmjax.data.sources.base import Reading
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import eval_transform

SIDE = 8


def image(value):
  return png(np.full((SIDE, SIDE, 3), value, np.uint8))


RECORD = {
  "id": "one",
  "concept": 0,
  "text": "see: <image> a red cat <image> a dog  <image> two cats",
  "images": [image(0), image(100), image(200)],
}
TOKENS = dict(vocab_size=300, max_length=16, bos_token="<bos>", image_token="<image>", chunk_token="<end>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  data = DataConfig(
    columns={"text": Interleaved()}, tokenizer=TokenizerConfig(**TOKENS), dir=str(tmp_path_factory.mktemp("t"))
  )
  return make_tokenizer(data, [RECORD])


def spelled(tokenizer, ids):
  """The tokens of a row as one string, without spaces and padding."""
  names = [tokenizer._engine.id_to_token(int(token)) for token in ids if token != tokenizer.pad_id]
  return "".join(names).replace("Ġ", " ")


def test_new_tokens_come_after_the_vocabulary(tokenizer, tmp_path):
  plain = Tokenizer(tokenizer._engine, TokenizerConfig(**TOKENS | dict(image_token=None, chunk_token=None)))
  assert (tokenizer.image_id, tokenizer.chunk_id) == (tokenizer.vocab_size - 2, tokenizer.vocab_size - 1)
  assert plain.image_id is None and tokenizer.extends(plain._engine.get_vocab())
  assert not tokenizer.extends({"<image>": 3})
  tokenizer.save(tmp_path)
  assert Tokenizer.load(tmp_path).same_ids(tokenizer)
  assert tokenizer.image_id not in tokenizer(["a <image>"])[0]  # only a column makes images of it


def test_images_stand_at_their_places_and_texts_between_them_end(tokenizer):
  ids, said = Interleaved().ids([Piece(RECORD["text"])], tokenizer)
  assert spelled(tokenizer, ids) == (
    "<bos> see:<end><image> a red cat<end><image> a dog<end><image> two cats<end><eos>"
  )
  assert [place for place, counts in enumerate(said) if not counts] == [
    place for place, token in enumerate(ids) if token in (tokenizer.begin_id, tokenizer.image_id)
  ]
  assert spelled(tokenizer, Interleaved(copies=2).ids([Piece("<image> a")], tokenizer)[0]) == (
    "<bos><image><image> a<end><eos>"
  )
  prompt = Interleaved().ids([Piece("<image> a<image> b", last=False)], tokenizer, end=False)[0]
  assert spelled(tokenizer, prompt) == "<bos><image> a<end><image> b"


@pytest.mark.parametrize(
  ("first", "expected"),
  [
    (0, "<bos> see:<end><image> a red cat<end><image> a dog<end><eos>"),
    (1, "<bos><image> a dog<end><image> two cats<end><eos>"),
  ],
)
def test_a_long_record_is_shown_by_parts(tokenizer, first, expected):
  column = Interleaved(images=2)
  assert spelled(tokenizer, column.row_of([Piece(RECORD["text"])], tokenizer, first)[""]) == expected


def batch_of(column, records, tokenizer, indices=(0,)):
  data = DataConfig(columns={"text": column}, tokenizer=tokenizer.config)
  return Batcher(data, records, tokenizer, SIDE, seed=0)(np.zeros(len(indices), int), np.array(indices))


def test_training_rows_hold_consecutive_images_with_their_texts(tokenizer):
  seen = set()
  for seed in range(8):
    data = DataConfig(columns={"text": Interleaved(images=2)}, tokenizer=TokenizerConfig(**TOKENS))
    found = Batcher(data, [RECORD], tokenizer, SIDE, seed=seed)(np.array([0]), np.array([0])).batch
    text, shown = spelled(tokenizer, found["text"][0]), found["text_images"][0, :, 0].mean((1, 2, 3))
    assert found["text_images"].shape == (1, 2, 1, SIDE, SIDE, 3)
    first = 0 if "red" in text else 1
    seen.add(first)
    assert ("two" in text) == (first == 1) and shown[0] < shown[1]
  assert seen == {0, 1}


def test_evaluation_rows_are_the_same_without_chance(tokenizer):
  column, short = Interleaved(images=2), RECORD | {"text": "<image> a", "images": [image(255)]}
  transform = eval_transform(DataConfig(), SIDE)
  evaluating = Evaluating(transform, tokenizer, lambda record: "")
  found = column.evaluated("text", [RECORD, short], np.array([0, 1, 1]), evaluating)
  assert found["text"].shape == (3, 16)
  pixels = np.asarray(found["text_images"])
  np.testing.assert_allclose(pixels[0, :, 0, 0, 0, 0], [-1.0, 100 / 127.5 - 1], atol=1e-6)
  np.testing.assert_allclose(pixels[1, :, 0, 0, 0, 0], [1.0, 0.0], atol=1e-6)  # an image that is not there is zeros
  np.testing.assert_array_equal(pixels[1], pixels[2])


def test_videos_are_frames_and_images_have_one(tokenizer):
  clip = np.stack([np.full((SIDE, SIDE, 3), value, np.uint8) for value in (0, 255)])
  record = RECORD | {"text": "<image> a <image> b", "images": [clip, image(255)]}
  found = batch_of(Interleaved(images=2, frames=3), [record], tokenizer).batch["text_images"][0]
  assert found[0, :2].max(axis=(1, 2, 3))[0] < found[0, 1].min() and (found[0, 2] == PADDED).all()
  assert (found[1, 1:] == PADDED).all() and found[1, 0].min() > PADDED


def test_a_dialogue_marks_what_the_assistant_says(tokenizer):
  turns = [("user", "<image> a cat"), ("assistant", "red"), ("user", "two"), ("assistant", "a dog")]
  record = {"id": "d", "concept": 0, "turns": turns, "images": [image(9)]}
  tokenizer = Tokenizer(tokenizer._engine, TokenizerConfig(**TOKENS | dict(max_length=40)))
  found = batch_of(Dialogue(images=1, user="see:", assistant="a:"), [record], tokenizer).batch
  ids, said = found["text"][0], found["text_said"][0]
  assert spelled(tokenizer, ids[said]) == " red<end> a dog<end>"
  assert spelled(tokenizer, ids) == "<bos> see:<image> a cat<end> a: red<end> see: two<end> a: a dog<end><eos>"
  cut = Tokenizer(tokenizer._engine, TokenizerConfig(**TOKENS | dict(max_length=len(ids[ids != tokenizer.pad_id]) - 2)))
  found = batch_of(Dialogue(images=1, user="see:", assistant="a:"), [record], cut).batch
  assert found["text"][0, -1] == tokenizer.eos_id and not found["text_said"][0, -1] and found["text_said"].any()
  last = batch_of(Dialogue(images=1, user="see:", assistant="a:", learn="last"), [record], tokenizer).batch
  assert spelled(tokenizer, last["text"][0][last["text_said"][0]]) == " a dog<end>"
  prompt = Dialogue(user="see:", assistant="a:").prompt(turns[:3])
  assert spelled(tokenizer, Dialogue().ids(prompt, tokenizer, end=False)[0]).endswith(" see: two<end> a:")


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (dict(text="<image> a <image> b"), r"one: there are 3 images, and 2 <image> in the text: write <image> where each"),
    (dict(images=RECORD["images"][:2]), r"one: the text has 3 <image>, and there are 2 images: add images"),
    (dict(text=3), "one: the text is 3, not a text"),
    (dict(text=" "), "one: the text is empty"),
    (dict(images=[b"no", image(1), image(2)]), "one.*image"),
  ],
)
def test_records_that_do_not_fit_are_refused_by_name(tokenizer, change, said):
  prepared = batch_of(Interleaved(images=3), [RECORD | change], tokenizer)
  import re

  assert re.search(said, prepared.error or ""), prepared.error


def test_what_a_column_needs_is_said(tokenizer):
  with pytest.raises(DataError, match="set --data.tokenizer.image-token '<image>'"):
    plain = Tokenizer(tokenizer._engine, TokenizerConfig(**TOKENS | dict(image_token=None, chunk_token=None)))
    Interleaved().ids([Piece("a")], plain)
  assert Interleaved().fields == ("text", "images") and Dialogue().fields == ("turns", "images")
  with pytest.raises(DataError, match="there are no turns"):
    Dialogue().check({"id": "x", "images": [], "turns": []})
  with pytest.raises(DataError, match="is of 'system'"):
    Dialogue().check({"id": "x", "images": [], "turns": [("system", "a")]})
  with pytest.raises(ValueError, match="images=0"):
    Interleaved(images=0)


def test_documents_of_all_forms_are_read(tmp_path):
  for name in "ab":
    (tmp_path / f"{name}.png").write_bytes(image(50))
  inline = base64.b64encode(image(7)).decode()
  info = [{"image_name": "b.png", "matched_text_index": 1}, {"image_base64": inline, "matched_text_index": 0}]
  lines = [
    {"text": "<image> one <image> two", "images": ["a.png", "b.png"], "split": "train", "answer": "x"},
    {"texts": [None, "one", None], "images": ["a.png", None, "b.png"], "split": "train"},
    {"text_list": ["one.", "two."], "image_info": info, "split": "val"},
  ]
  (tmp_path / "0.jsonl").write_text("\n".join(json.dumps(line) for line in lines[:2]) + "\n\n", encoding="utf-8")
  (tmp_path / "1.jsonl").write_text(json.dumps(lines[2]), encoding="utf-8")
  source = Documents(path=str(tmp_path))
  train = source.open("train", Reading())
  assert [train[0]["text"], train[1]["text"]] == ["<image> one <image> two", "<image> one <image>"]
  assert train[0]["answer"] == "x" and train[1]["images"] == [image(50)] * 2
  (validation,) = source.open("validation", Reading())
  assert validation["text"] == "<image> one. <image> two." and validation["images"] == [image(7), image(50)]
  assert train.without_image(0)["images"] == [b"", b""] and len(source.open("all", Reading())) == 3
  for record in (train[0], train[1], validation):
    Interleaved().check(record)
  turns = {
    "conversations": [{"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": "a cat"}],
    "image": "a.png",
  }
  own = {"turns": [["user", "hi"], ["assistant", "ho"]], "split": "train"}
  (tmp_path / "0.jsonl").write_text(json.dumps(turns | {"split": "train"}) + "\n" + json.dumps(own), encoding="utf-8")
  (tmp_path / "1.jsonl").unlink()
  talks = Documents(path=str(tmp_path), content="dialogue").open("train", Reading())
  assert talks[0]["turns"] == [("user", "<image> what?"), ("assistant", "a cat")] and talks[1]["images"] == []
  Dialogue().check(talks[0])


@pytest.mark.parametrize(
  ("line", "said"),
  [
    ('{"text": "<image> a", "images": ["c.png"]}', "there is no image 'c.png'"),
    ('{"text": "a", "images": 3}', "the field 'images' is 3, not a list"),
    ('{"words": "a"}', "has no field text, texts or text_list"),
    ('{"texts": ["a"], "images": []}', "there are 1 texts and 0 images"),
    ('{"text_list": ["a"], "image_info": [{"matched_text_index": 4}]}', "matched_text_index 4, and there are 1 texts"),
    ('{"text_list": ["a"], "image_info": [{"matched_text_index": 0, "image_base64": "?"}]}', "is not base64"),
    ("[1]", "not an object"),
    ('{"text": "a", "split": "tset"}', "the field 'split' is 'tset'"),
  ],
)
def test_bad_documents_are_refused_by_file_and_line(tmp_path, line, said):
  (tmp_path / "a.jsonl").write_text(line, encoding="utf-8")
  with pytest.raises(DataError, match=said) as raised:
    list(Documents(path=str(tmp_path)).open("all", Reading()))
  assert "a.jsonl" in str(raised.value)


@pytest.mark.parametrize("turn", [["user"], "hi", {"role": "user"}, ["user", 3], [["a"], "b"], None])
def test_turns_that_are_none_are_refused(tmp_path, turn):
  (tmp_path / "a.jsonl").write_text(json.dumps({"turns": [turn], "split": "train"}), encoding="utf-8")
  with pytest.raises(DataError, match=r"a.jsonl, line 1: a turn is .*, not a role and a text"):
    Documents(path=str(tmp_path), content="dialogue").open("train", Reading())[0]


def test_bad_lines_can_be_skipped_and_a_directory_without_lines_is_refused(tmp_path):
  with pytest.raises(DataError, match=r"has no \*.jsonl"):
    Documents(path=str(tmp_path)).open("train", Reading())
  with pytest.raises(DataError, match="needs --data.source.path DIR"):
    Documents().open("train", Reading())
  (tmp_path / "a.jsonl").write_text('{"text": "a", "images": [], "split": "train"}\n{"text": \n', encoding="utf-8")
  found = Documents(path=str(tmp_path)).open("train", Reading(on_bad_record="skip"))
  assert len(found) == 1 and found.num_skipped == 1

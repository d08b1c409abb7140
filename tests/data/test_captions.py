"""One rule for captions, whatever they are read from."""

import json

import pytest

from mmjax.data import Coco, DataConfig, DataError, Flickr30k, Folder, Reading, Shards, Texts, Vqav2, make_source
from mmjax.data.captions import json_object, read_captions
from mmjax.data.columns.text import check_filled
from mmjax.data.shards.record import decode_record, encode_record, parse_json, parse_text
from mmjax.data.shards.writer import write_shards
from mmjax.data.sources.tfds import TfdsRecords
from mmjax.data.transforms import check_captions
from tests.data.shard_files import picture, tar_of

WRONG = [
  None, True, 3, 2.5, float("nan"), [], {}, {"en": "a cat"}, ["a cat", None], ["a cat", 1], [["a cat"]], ["a cat", ""],
  "", " \n\t", "\ufeff", "\u200b\u200d", "\u3000", "\u3164", "\u2800 \u2800", "\ufe0f", "\u115f\uffa0",
  "a\0c\0", "\ud800", '["a cat", "a dog"]', "['a cat', 'a dog']",
  "['a cat' 'a dog']", '{"en": "a cat"}', "{'en': 1}", "[['a cat']]", '[{"raw": "a cat"}]', "b'a cat'", ' ["a"]\n',
  '["a cat", null]', "['a cat', None]", "[None]", "[nan]", "[]", "{}", "()", "[1]", "[1, 2]", "[0.1 -2e5]",
  "('a', 'b')", "('a',)", "{'a', 'b'}", "{1: 'a'}", "{en: 'a'}", "array(['a'], dtype=object)",
  "[array(['a', nan], dtype=object)]",
  "OrderedDict([('en', 'a')])", "collections.deque(['a'])", "frozenset({'a'})", "tensor(3)", "np.str_('a')",
  "tf.Tensor(b'a', shape=(), dtype=string)", "['a' ... 'b']", "Caption(text='a')", "<object object at 0x7f>",
  "[object Object]", "np.True_", "[np.True_]", "['a', 'it's']", "[" * 300 + "1" + "]" * 300, "[" + "1, " * 9000 + "]",
]  # fmt: skip
RIGHT = {
  " a cat\n": "a cat", "\ufeffa cat": "a cat", " \ufeff a cat": "a cat", "nan": "nan", "None": "None", "0": "0",
  "[music]": "[music]", "(a cat)": "(a cat)", "(2024)": "(2024)", "'a', 'b'": "'a', 'b'", "('Stop')": "('Stop')",
  "dog(s)": "dog(s)", "Bob (left)": "Bob (left)", "P(X=1)": "P(X=1)", "[12:30]": "[12:30]", "(5in pipe)": "(5in pipe)",
  "[1] a cat": "[1] a cat", "(1) (2)": "(1) (2)", "[cat, dog]": "[cat, dog]", "f(x)": "f(x)", "2024": "2024",
  "dog(3)": "dog(3)", "set (1)": "set (1)", "['twas night]": "['twas night]", "<br>": "<br>", "{x: y}": "{x: y}",
  "[a cat] 'b'": "[a cat] 'b'", '"a cat"': '"a cat"', "b": "b", "b'": "b'", "{x}": "{x}", "👍": "👍",
  "a\ufeffb": "a\ufeffb", "x\u2028y": "x\u2028y", "e\u0301": "e\u0301", "\ufffd": "\ufffd", "['a'": "['a'",
}  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value)[:40])
def test_what_is_no_caption_is_refused(value):
  with pytest.raises(DataError, match=r"^r: (is|has) .*\. Mend it$"):
    read_captions(value, "r:", "Mend it")
  with pytest.raises(DataError, match=r"^row 7"):
    check_captions({"name": value}, "row 7")


@pytest.mark.parametrize("text", RIGHT, ids=repr)
def test_a_caption_is_as_it_was_written_but_for_spaces_and_the_mark(text):
  assert read_captions(text, "r:") == read_captions([text], "r:") == [RIGHT[text]]
  assert read_captions([text, "b"], "r:") == [RIGHT[text], "b"]


def in_csv(folder, value):
  (folder / "captions.csv").write_text('image,caption\na.png,"{}"\n'.format(value.replace('"', '""')), newline="")
  return Folder(str(folder))


def in_jsonl(folder, value):
  (folder / "captions.jsonl").write_text(json.dumps({"image": "a.png", "caption": value}))
  return Folder(str(folder))


def in_tar_json(folder, value):
  members = [("a.png", picture(1)), ("a.json", json.dumps({"caption": value}).encode())]
  return Shards((str(tar_of(folder / "x.tar", members)),))


def in_tar_text(folder, value):
  return Shards((str(tar_of(folder / "x.tar", [("a.png", picture(1)), ("a.txt", value.encode())])),))


def in_coco(folder, value):
  (folder / "annotations").mkdir()
  (folder / "train2017").mkdir()
  (folder / "train2017/a.png").write_bytes(picture(1))
  images, captions = [{"id": 1, "file_name": "a.png"}], [{"image_id": 1, "caption": value}]
  content = json.dumps({"images": images, "annotations": captions})
  (folder / "annotations/captions_train2017.json").write_text(content)
  return Coco(str(folder))


def in_karpathy(folder, value):
  (folder / "images").mkdir()
  (folder / "images/a.png").write_bytes(picture(1))
  images = [{"filename": "a.png", "split": "train", "sentences": [{"raw": value}]}]
  (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
  return Flickr30k(str(folder))


def in_token(folder, value):
  (folder / "images").mkdir()
  (folder / "images/a.png").write_bytes(picture(1))
  (folder / "results_20130124.token").write_text(f"a.png#0\t{value}\n", encoding="utf-8", newline="")
  return Flickr30k(str(folder))


READERS = [in_csv, in_jsonl, in_tar_json, in_tar_text, in_coco, in_karpathy, in_token]
JSON = [in_jsonl, in_tar_json, in_coco, in_karpathy]


def captions(folder, reader, value):
  (folder / "a.png").write_bytes(picture(1))
  split = "train" if reader is in_coco else "all"
  return reader(folder, value).open(split, Reading(str(folder / "cache")))[0]["captions"]["name"]


@pytest.mark.parametrize(
  "reader, value",
  [
    *((reader, value) for reader in READERS for value in ("", "a\0c\0", "['a cat', None]", "array([1])", "\u200b")),
    *((reader, value) for reader in JSON for value in (None, True, 3, float("nan"), {"en": "a cat"})),
  ],
)
def test_every_reader_refuses_what_is_no_caption(tmp_path, reader, value):
  with pytest.raises(DataError, match=r"captions\.|x\.tar|dataset_flickr30k|results_|captions_train2017"):
    captions(tmp_path, reader, value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("value", ["nan", "NULL", "None", "\\N", "<NA>", "#N/A", " NaN "])
def test_words_for_a_missing_value_are_texts_where_values_have_types(tmp_path, reader, value):
  if reader in JSON:
    assert captions(tmp_path, reader, value) == [value.strip()]
    return
  with pytest.raises(DataError, match=r"which stands for a missing value. If the word is meant, add a full stop"):
    captions(tmp_path, reader, value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("value", ["nan bread", "none", "Null.", "2024", "NA!", "nil"])
def test_other_words_are_texts_everywhere(tmp_path, reader, value):
  assert captions(tmp_path, reader, value) == [value]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("value", [" a cat ", "\ufeffa cat", "x\u2028y\x85z\x0b", "a, b; c\t'd\"", "ü 👍"])
def test_every_reader_gives_the_same_caption(tmp_path, reader, value):
  assert captions(tmp_path, reader, value) == read_captions(value, "r:")


@pytest.mark.parametrize("reader", [in_jsonl, in_tar_json])
def test_lists_are_several_captions(tmp_path, reader):
  assert captions(tmp_path, reader, ["a cat ", "a dog"]) == ["a cat", "a dog"]
  with pytest.raises(DataError, match=r"\['a cat', None\], neither a text nor a list of texts"):
    (tmp_path / "x.tar").unlink(missing_ok=True)
    captions(tmp_path, reader, ["a cat", None])


def test_a_mark_of_utf8_is_no_part_of_a_caption_in_a_tar():
  assert parse_text(b"\xef\xbb\xbfa cat\n", "x.txt") == ["a cat"]
  assert parse_json(b'\xef\xbb\xbf{"caption": "a cat"}', "x.json") == ["a cat"]
  for data in ("a cat".encode("utf-16"), "a cat".encode("utf-16-le"), "ä".encode("latin-1")):
    with pytest.raises(DataError, match=r"^x.txt: .*(UTF-8|UTF-16)"):
      parse_text(data, "x.txt")


@pytest.mark.parametrize("text", ['{"caption": "a", "caption": "b"}', '{"a": {"b": 1, "b": 2}, "caption": "c"}'])
def test_a_field_that_is_there_twice_is_not_chosen_from(text):
  with pytest.raises(DataError, match=r"x.json: not JSON \(the field '(caption|b)' is there twice\)"):
    parse_json(text.encode(), "x.json")
  assert json_object('{"a": {"b": 1}, "b": [{"b": 2}]}', "x") == {"a": {"b": 1}, "b": [{"b": 2}]}


def test_records_of_an_array_record_follow_the_rule():
  with pytest.raises(DataError, match=r"^r: the field 'caption' is \['a', 'b'\]|printed list"):
    decode_record(encode_record(b"image", ["['a', 'b']"], "k"), "r")
  assert decode_record(encode_record(b"image", ["\ufeffa "], "k"), "r")[1] == ["a"]


@pytest.mark.parametrize("format", ["webdataset", "arrayrecord"])
def test_shards_are_not_written_with_what_no_reader_accepts(tmp_path, format):
  record = {"image": picture(1), "captions": {"name": "abc"}, "id": "row 7", "concept": 0}
  (path,) = write_shards([record], tmp_path / "one", format=format, per_shard=1)  # type: ignore[list-item]
  source = Shards((str(path),)).open("all", Reading(str(tmp_path / "cache")))
  assert source[0]["captions"]["name"] == ["abc"], "one text, not three letters"
  record["captions"] = {"name": ["a\0"]}
  with pytest.raises(DataError, match=r"row 7: the caption has a NUL character"):
    list(write_shards([record], tmp_path, format=format, per_shard=1))  # type: ignore[list-item]


@pytest.mark.parametrize(
  "value, label, expected",
  [
    (1, True, ["big cat"]),
    (-1, True, r"tiny/train/0: 'text' is -1, no caption \(the classes are 0 to 1; -1 stands for .*on-bad-record skip"),
    (2, True, r"tiny/train/0: 'text' is 2, no caption \(the classes are 0 to 1"),
    ([0, 1], True, r"tiny/train/0: 'text' is \[0, 1\], no caption"),
    (b"\xff", False, r"tiny/train/0: 'text' is b'.xff', no caption .*utf-8"),
    (b" a cat ", False, ["a cat"]),
    ([b"a cat", b" "], False, r"tiny/train/0: 'text' is empty"),
    ([], False, r"tiny/train/0: 'text' is empty"),
    ([b"a", b"b"], False, ["a", "b"]),
  ],
)
def test_tfds_follows_the_rule(value, label, expected):
  features = pytest.importorskip("tensorflow_datasets").features
  source = TfdsRecords.__new__(TfdsRecords)
  source._data, source._image_key, source._caption_key = [{"image": picture(1), "text": value}], "image", "text"  # type: ignore[assignment]
  source._name, source._split = "tiny", "train"
  source._label = features.ClassLabel(names=["dog", "big_cat"]) if label else object()
  if isinstance(expected, list):
    assert source[0]["captions"]["name"] == expected
  else:
    with pytest.raises(DataError, match=expected):
      source[0]
  source._data = [{"image": [picture(1)], "text": value}]
  with pytest.raises(DataError, match=r"'image' is not one encoded image.*--data.source.image-key"):
    source[0]


def test_text_corpora_are_split_at_line_ends_only(tmp_path):
  (tmp_path / "A.TXT").write_bytes("\ufeffone\u2028still one\r\n two\x85 \r\n".encode())
  (tmp_path / "b.txt").write_bytes("['code']\n\u200b\nmore\n".encode())
  records = make_source(DataConfig(source=Texts(corpus="files", path=str(tmp_path))), "all")
  pairs = {(records[index]["first"], records[index]["second"]) for index in range(len(records))}
  assert pairs == {("one\u2028still one", "two"), ("['code']", "more")}
  (tmp_path / "b.txt").write_bytes("one\ntwo\n".encode("utf-16-le"))
  with pytest.raises(DataError, match=r"b.txt has a NUL character"):
    make_source(DataConfig(source=Texts(corpus="files", path=str(tmp_path))), "all")


@pytest.mark.parametrize("value", [None, 3, "", ["a", None], [], "a\0", "\ud800"])
def test_questions_answers_and_pairs_are_texts(value):
  with pytest.raises(DataError, match=r"^row 7: the field 'question' "):
    check_filled({"id": "row 7", "question": value}, "question")
  check_filled({"id": "row 7", "question": "['a'] is code", "answers": ["yes", "no"]}, "answers")


@pytest.mark.parametrize(
  "answer, good", [(" yes ", True), ("none", True), ("nan", True), ("a\0", False), ("\ufeff", False)]
)
def test_vqa_answers_follow_the_rule(tmp_path, answer, good):
  (tmp_path / "train2014").mkdir()
  (tmp_path / "train2014" / f"COCO_train2014_{1:012d}.jpg").write_bytes(picture(1, "JPEG"))
  questions = [{"question_id": 1, "image_id": 1, "question": "\ufeffis it? "}]
  annotations = [{"question_id": 1, "multiple_choice_answer": answer, "answers": [{"answer": answer}]}]
  source = Vqav2(str(tmp_path))

  def opened(questions, annotations):
    name = tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json"
    name.write_text(json.dumps({"questions": questions}))
    (tmp_path / "v2_mscoco_train2014_annotations.json").write_text(json.dumps({"annotations": annotations}))
    return source.open("train", Reading())

  if not good:
    with pytest.raises(DataError, match=r"annotations.json: annotations\[0\]"):
      opened(questions, annotations)
    return
  record = opened(questions, annotations).without_image(0)
  assert (record["question"], record["answer"], record["answers"]) == ("is it?", answer.strip(), [answer.strip()])
  other = annotations[0] | {"multiple_choice_answer": "x"}
  with pytest.raises(DataError, match=r"annotations\[1\]: question_id 1 is there twice, with other answers"):
    opened(questions, [*annotations, other])
  with pytest.raises(DataError, match=r"questions\[1\]: question_id 1 is there twice, with other words"):
    opened([*questions, questions[0] | {"question": "was it?"}], annotations)
  assert len(opened(questions * 2, annotations * 2)) == 1


def test_an_image_of_coco_or_flickr_is_one_image(tmp_path):
  source = in_coco(tmp_path, "a cat")
  file = tmp_path / "annotations/captions_train2017.json"
  content = json.loads(file.read_text())
  content["images"].append({"id": 1, "file_name": "b.png"})
  file.write_text(json.dumps(content))
  with pytest.raises(DataError, match=r"images\[1\]: the id 1 is there twice, with the images 'a.png' and 'b.png'"):
    source.open("train", Reading())
  file.write_text('{"images": [{"id": 1, "id": 2, "file_name": "a.png"}], "annotations": []}')
  with pytest.raises(DataError, match=r"captions_train2017.json: the field 'id' is there twice"):
    source.open("train", Reading())
  flickr = in_karpathy(tmp_path, "a cat")
  file = tmp_path / "dataset_flickr30k.json"
  content = json.loads(file.read_text())
  content["images"].append(content["images"][0] | {"split": "test"})
  file.write_text(json.dumps(content))
  with pytest.raises(DataError, match=r"images\[1\]: the image 'a.png' is in the split 'test', and before in 'train'"):
    flickr.open("train", Reading())

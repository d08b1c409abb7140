"""COCO captions, VQAv2 and Flickr30k in the layouts they are published in, on miniatures."""

import io
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from mmjax.data import (
  Answer,
  Coco,
  DataConfig,
  DataError,
  Flickr30k,
  Question,
  TokenizerConfig,
  Vqav2,
  Weight,
  eval_transform,
  evaluation_batches,
  make_loader,
  make_source,
  make_tokenizer,
)
from mmjax.data.columns.image import Image as ImageColumn
from tests.data.changed import with_source

SOURCES = {"coco": Coco, "vqav2": Vqav2, "flickr30k": Flickr30k}
TOKENIZER = TokenizerConfig(vocab_size=300, max_length=12)


def picture(path, colour=(200, 0, 0)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (12, 8), colour).save(path)


def write(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def coco(folder, year="2017", prefix=""):
  """Three pictures with two captions each in train, one in val; returns the training annotations."""
  content = {}
  for part, ids in (("train", (9, 25, 30)), ("val", (42,))):
    for number in ids:
      picture(folder / f"{prefix}{part}{year}" / f"{number:012d}.jpg", (number, 0, 0))
    content[part] = {
      "info": {"year": int(year)},
      "licenses": [{"id": 1, "name": "x"}],
      "images": [{"id": n, "file_name": f"{n:012d}.jpg", "height": 8, "width": 12} for n in ids],
      "annotations": [
        {"image_id": n, "id": 10 * n + k, "caption": f" caption {k} of {n}.\n"} for k in range(2) for n in ids
      ],
    }
    write(folder / "annotations" / f"captions_{part}{year}.json", content[part])
  return content["train"]


def vqa(folder):
  """Three questions on two pictures in train, one in val; returns the training questions and annotations."""
  written = []
  for part, asked in (("train2014", ((9, 0), (9, 1), (25, 0))), ("val2014", ((42, 0),))):
    for image_id in {image_id for image_id, _ in asked}:
      picture(folder / part / f"COCO_{part}_{image_id:012d}.jpg", (image_id, 0, 0))
    questions = [{"image_id": i, "question": f"is it {k}?", "question_id": 1000 * i + k} for i, k in asked]
    annotations = [
      {
        "question_type": "is it",
        "multiple_choice_answer": "yes" if k else "no",
        "answers": [
          {"answer": "yes" if k or n > 6 else "no", "answer_confidence": "yes", "answer_id": n + 1} for n in range(10)
        ],
        "image_id": i,
        "answer_type": "yes/no",
        "question_id": 1000 * i + k,
      }
      for i, k in reversed(asked)
    ]
    entries = {"info": {}, "data_subtype": part, "questions": questions}, {"info": {}, "annotations": annotations}
    write(folder / f"v2_OpenEnded_mscoco_{part}_questions.json", entries[0])
    write(folder / f"v2_mscoco_{part}_annotations.json", entries[1])
    written.append(entries)
  return written[0]


def flickr(folder):
  """Four pictures, with Karpathy's splits."""
  images = []
  for number, part in enumerate(("train", "val", "test", "train")):
    picture(folder / "flickr30k-images" / f"{number}.jpg")
    sentences = [{"raw": f"sentence {k} of {number}", "tokens": [], "sentid": k} for k in range(2)]
    images.append({"filename": f"{number}.jpg", "split": part, "sentences": sentences, "imgid": number})
  content = {"dataset": "flickr30k", "images": images}
  write(folder / "dataset_flickr30k.json", content)
  return content


def config(kind, folder, **more):
  return DataConfig(source=SOURCES[kind](str(folder)), dir=str(folder / "cache"), tokenizer=TOKENIZER, **more)


@pytest.mark.parametrize("year, prefix", [("2017", ""), ("2014", "images/")])
def test_coco_captions(tmp_path, year, prefix):
  coco(tmp_path, year, prefix)
  train, held_out = (make_source(config("coco", tmp_path), split) for split in ("train", "validation"))
  assert (len(train), len(held_out)) == (3, 1)
  record = train[1]
  assert record["captions"] == {"name": ["caption 0 of 25.", "caption 1 of 25."]}
  assert record["id"].endswith("train" + year + "/000000000025.jpg")
  assert Image.open(io.BytesIO(record["image"])).size == (12, 8)
  tokenizer = make_tokenizer(config("coco", tmp_path), train)
  batch = next(make_loader(config("coco", tmp_path), train, tokenizer, image_size=8, batch_size=4))
  assert batch["image"].shape == (4, 8, 8, 3) and batch.keys() == {"image", "text", "index", "concept"}


def test_vqav2(tmp_path):
  vqa(tmp_path)
  settings = config("vqav2", tmp_path, num_answers=1)
  train, held_out = (make_source(settings, split) for split in ("train", "validation"))
  assert (len(train), len(held_out)) == (3, 1)
  record = train[0]
  assert record["question"] == "is it 0?" and record["answer"] == "no" and record["id"] == "vqav2/9000"
  assert record["answers"] == ["no"] * 7 + ["yes"] * 3 and train[1]["answers"] == ["yes"] * 10
  assert record["picture"] == train[1]["picture"] == 9 != train[2]["picture"]
  tokenizer = make_tokenizer(settings, train)
  assert tokenizer.answers == ("no",), "two of three"
  batch = next(evaluation_batches(train, eval_transform(settings, 8), tokenizer, batch_size=3))
  assert batch["answer"].tolist() == [0, -1, 0]
  reds = batch["image"][:, 4, 4, 0]
  assert reds[0] == reds[1] < reds[2]
  assert "relevance" not in batch and batch["answer_text"].shape == (3, 8)


def test_vqav2_batches_hold_the_scores_of_all_ten_answers(tmp_path):
  vqa(tmp_path)
  columns = {"image": ImageColumn(), "text": Question(), "answer": Answer(scores=True), "agreement": Weight()}
  settings = config("vqav2", tmp_path, columns=columns)
  train = make_source(settings, "train")
  tokenizer = make_tokenizer(settings, train)
  assert tokenizer.answers == ("no", "yes")
  want = {0: [1, 1], 1: [0, 1], 2: [1, 1]}  # seven and three of ten; ten of ten; seven and three
  loader = make_loader(settings, train, tokenizer, image_size=8, batch_size=4)
  evaluation = next(evaluation_batches(train, eval_transform(settings, 8), tokenizer, batch_size=4, columns=columns))
  for batch in (next(loader), evaluation):
    assert batch["answer_scores"].dtype == np.float32
    assert batch["answer_scores"].tolist() == [want[index] for index in batch["index"].tolist()]
    np.testing.assert_allclose(batch["agreement"], [{1: 1.0}.get(i, 0.7) for i in batch["index"].tolist()], rtol=1e-6)
  loader.close()


def test_flickr30k_with_karpathys_splits(tmp_path):
  flickr(tmp_path)
  settings = config("flickr30k", tmp_path)
  names = {split: [r["id"].rsplit("/")[-1] for r in make_source(settings, split)] for split in ("train", "validation")}
  assert names == {"train": ["0.jpg", "3.jpg"], "validation": ["1.jpg"]}
  assert len(make_source(settings, "test")) == 1 and len(make_source(settings, "all")) == 4
  assert make_source(settings, "test")[0]["captions"] == {"name": ["sentence 0 of 2", "sentence 1 of 2"]}


def test_flickr30k_as_published(tmp_path):
  lines = []
  for number in range(60):
    picture(tmp_path / "flickr30k-images" / f"{number}.jpg")
    lines += [f"{number}.jpg#{k}\tsentence {k} of {number} ." for k in range(2)]
  write(tmp_path / "results_20130124.token", "\n".join(lines) + "\n")
  settings = config("flickr30k", tmp_path)
  train, held_out = (make_source(settings, split) for split in ("train", "validation"))
  assert len(train) + len(held_out) == 60 and 0 < len(held_out) < 12
  assert not {r["id"] for r in train} & {r["id"] for r in held_out}
  assert train[0]["captions"]["name"][1].startswith("sentence 1 of ")


def damaged(content, place, change):
  """A deep copy with the entry at a path changed, or removed where the change is None."""
  content = json.loads(json.dumps(content))
  target = content
  for key in place[:-1]:
    target = target[key]
  if change is None:
    del target[place[-1]]
  else:
    target[place[-1]] = change
  return content


COCO = [
  (("annotations", 4, "caption"), None, r"captions_train2017.json: annotations\[4\] has no field 'caption'"),
  (("annotations", 4, "caption"), 7, r"annotations\[4\]: the field 'caption' is 7, not a text"),
  (("annotations", 4, "caption"), " ", r"annotations\[4\]: the field 'caption' is empty"),
  (("annotations", 0, "image_id"), "9", r"annotations\[0\]: the field 'image_id' is '9', not a whole number"),
  (("annotations", 0, "image_id"), 77, r"annotations\[0\] is of image_id 77, which `images` does not list"),
  (("annotations", 3), "x", r"annotations\[3\] is not an object with image_id, caption"),
  (("images", 2, "file_name"), "gone.jpg", r"images\[2\]: there is no image 'gone.jpg' in .*train2017"),
  (("images", 2, "id"), None, r"images\[2\] has no field 'id'"),
]


@pytest.mark.parametrize("place, change, message", COCO)
def test_damaged_coco_entries_are_named_or_skipped(tmp_path, place, change, message):
  write(tmp_path / "annotations/captions_train2017.json", damaged(coco(tmp_path), place, change))
  with pytest.raises(DataError, match=message + r".*--data.on-bad-record skip"):
    make_source(config("coco", tmp_path), "train")
  source = make_source(config("coco", tmp_path, on_bad_record="skip"), "train")
  assert source.num_skipped >= 1 and 2 <= len(source) <= 3


@pytest.mark.parametrize("caption", [None, ["a", "b"], 3, ""])
def test_a_file_name_is_no_caption_of_another_image(tmp_path, caption):
  """An annotation may have the name of its image, and an id that is the number of another image."""
  content = coco(tmp_path)
  content["annotations"] += [{"id": 25, "image_id": 9, "caption": caption, "file_name": f"{9:012d}.jpg"}]
  write(tmp_path / "annotations/captions_train2017.json", content)
  with pytest.raises(DataError, match=r"annotations\[6\]: the field 'caption' is"):
    make_source(config("coco", tmp_path), "train")
  source = make_source(config("coco", tmp_path, on_bad_record="skip"), "train")
  assert source.num_skipped == 1
  assert source[1]["captions"]["name"] == ["caption 0 of 25.", "caption 1 of 25."]


def test_annotations_may_have_the_file_name_and_images_a_caption(tmp_path):
  content = coco(tmp_path)
  content["annotations"] = [entry | {"file_name": "x.jpg"} for entry in content["annotations"]]
  content["images"] = [entry | {"caption": "not this one", "image_id": 25} for entry in content["images"]]
  write(tmp_path / "annotations/captions_train2017.json", content)
  source = make_source(config("coco", tmp_path), "train")
  assert [record["captions"]["name"][0] for record in source] == [f"caption 0 of {n}." for n in (9, 25, 30)]


def test_both_splits_of_coco_are_of_one_year(tmp_path):
  coco(tmp_path, "2017")
  coco(tmp_path, "2014")
  for name in ("captions_val2017.json", "captions_train2014.json"):
    (tmp_path / "annotations" / name).rename(tmp_path / "annotations" / f"{name}.off")
  assert "train2017" in make_source(config("coco", tmp_path), "train")[0]["id"]
  with pytest.raises(DataError, match="has no annotations/captions_val2017.json"):
    make_source(config("coco", tmp_path), "validation")
  (tmp_path / "annotations/captions_train2014.json.off").rename(tmp_path / "annotations/captions_train2014.json")
  ids = [make_source(config("coco", tmp_path), split)[0]["id"] for split in ("train", "validation")]
  assert "train2014" in ids[0] and "val2014" in ids[1]


def test_coco_joined_to_itself_is_named_and_images_without_captions_are_counted(tmp_path, caplog):
  content = coco(tmp_path)
  write(tmp_path / "annotations/captions_train2017.json", content | {"annotations": content["annotations"] * 2})
  with pytest.raises(DataError, match=r"annotations\[6\]: the id 90 is there twice"):
    make_source(config("coco", tmp_path), "train")
  source = make_source(config("coco", tmp_path, on_bad_record="skip"), "train")
  assert source.num_skipped == 6 and len(source[0]["captions"]["name"]) == 2
  write(
    tmp_path / "annotations/captions_train2017.json", damaged(content, ("annotations",), content["annotations"][:2])
  )
  assert len(make_source(config("coco", tmp_path), "train")) == 2
  assert "1 images have no caption and are left out, the first is 000000000030.jpg" in caplog.text


VQA = [
  (0, ("questions", 1, "question"), None, r"questions.json: questions\[1\] has no field 'question'"),
  (0, ("questions", 1, "question"), "", r"questions\[1\]: the field 'question' is empty"),
  (0, ("questions", 1, "question_id"), 5, r"questions\[1\]: question_id 5 has no annotation in .*annotations.json"),
  (0, ("questions", 1, "image_id"), 5, r"there is no image 'COCO_train2014_000000000005.jpg' in .*train2014"),
  (1, ("annotations", 1, "answers"), None, r"annotations.json: annotations\[1\] has no field 'answers'"),
  (1, ("annotations", 1, "answers"), [], r"annotations\[1\] \(question_id 9001\): its `answers` must be objects"),
  (1, ("annotations", 1, "answers", 3, "answer"), None, r"\(question_id 9001\): its `answers` must be objects"),
  (1, ("annotations", 1, "answers", 3, "answer"), 2, r"\(question_id 9001\): its `answers` must be objects"),
  (1, ("annotations", 1, "multiple_choice_answer"), None, r"has no field 'multiple_choice_answer'"),
]


@pytest.mark.parametrize("file, place, change, message", VQA)
def test_damaged_vqa_entries_are_named_or_skipped(tmp_path, file, place, change, message):
  name = ("v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json")[file]
  write(tmp_path / name, damaged(vqa(tmp_path)[file], place, change))
  with pytest.raises(DataError, match=message + r".*--data.on-bad-record skip"):
    make_source(config("vqav2", tmp_path), "train")
  source = make_source(config("vqav2", tmp_path, on_bad_record="skip"), "train")
  assert source.num_skipped >= 1 and len(source) == 2


FLICKR = [
  (("images", 0, "filename"), None, r"dataset_flickr30k.json: images\[0\] has no field 'filename'"),
  (("images", 0, "split"), "trian", r"images\[0\]: the field 'split' is 'trian', not train, restval, val, test"),
  (("images", 0, "sentences", 1), {"tokens": []}, r"images\[0\] \(0.jpg\): `sentences` must be objects"),
  (("images", 0, "filename"), "gone.jpg", r"images\[0\]: there is no image 'gone.jpg' in .*flickr30k-images"),
]


@pytest.mark.parametrize("place, change, message", FLICKR)
def test_damaged_flickr_entries_are_named_or_skipped(tmp_path, place, change, message):
  write(tmp_path / "dataset_flickr30k.json", damaged(flickr(tmp_path), place, change))
  with pytest.raises(DataError, match=message + r".*--data.on-bad-record skip"):
    make_source(config("flickr30k", tmp_path), "train")
  source = make_source(config("flickr30k", tmp_path, on_bad_record="skip"), "train")
  assert (source.num_skipped, len(source)) == (1, 1)


@pytest.mark.parametrize("line", ["0.jpg 0 no tab", "0.jpg#x\tcaption", "0.jpg#0\t ", "#0\tcaption"])
def test_damaged_token_lines_are_named(tmp_path, line):
  picture(tmp_path / "images" / "0.jpg")
  write(tmp_path / "results_20130124.token", f"0.jpg#0\tgood\n{line}\n")
  with pytest.raises(DataError, match=r"results_20130124.token, line 2 is not NAME.jpg#NUMBER"):
    make_source(config("flickr30k", tmp_path), "all")


FILES = {
  "coco": (coco, "annotations/captions_train2017.json", "images"),
  "vqav2": (vqa, "v2_mscoco_train2014_annotations.json", "annotations"),
  "flickr30k": (flickr, "dataset_flickr30k.json", "images"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_missing_cut_or_others_are_named(tmp_path, kind):
  make, name, field = FILES[kind]
  make(tmp_path)
  settings, file = config(kind, tmp_path), tmp_path / name
  whole = file.read_text()
  for text, message in ((whole[:-9], "Cannot read"), ("[]", "is not a JSON object"), ("{}", f"has no list '{field}'")):
    file.write_text(text)
    with pytest.raises(DataError, match=f"{file.name}.*{message}|{message}.*{file.name}"):
      make_source(settings, "train")
  file.unlink()
  with pytest.raises(DataError, match=rf"has no .*{file.name}.*--data.source.path must be the directory with"):
    make_source(settings, "train")
  for change, message in (({"path": None}, "needs --data.source.path"), ({"path": "/nowhere"}, "is not a directory")):
    with pytest.raises(DataError, match=message):
      make_source(with_source(settings, **change), "train")
  with pytest.raises(DataError, match=rf"Unknown {kind} split 'trian'. Did you mean 'train'"):
    make_source(settings, "trian")


def test_a_picture_that_vanishes_later_is_named(tmp_path):
  coco(tmp_path)
  source = make_source(config("coco", tmp_path), "train")
  (tmp_path / "train2017" / f"{9:012d}.jpg").unlink()
  with pytest.raises(DataError, match=r"Cannot read .*000000000009.jpg"):
    source[0]


def test_vqa_files_are_compacted_while_they_are_read(tmp_path):
  questions, annotations = vqa(tmp_path)
  number = 3000
  entries = annotations["annotations"][0]
  questions["questions"] = [{"image_id": 9, "question": f"is it {n}?", "question_id": n} for n in range(number)]
  annotations["annotations"] = [entries | {"question_id": n, "image_id": 9} for n in range(number)]
  write(tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json", questions)
  file = tmp_path / "v2_mscoco_train2014_annotations.json"
  write(file, annotations)
  tracemalloc.start()
  source = make_source(config("vqav2", tmp_path), "train")
  kept, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert len(source) == number
  assert kept < 700 * number, "bytes a question"
  assert peak < 2.2 * file.stat().st_size + 900 * number, "the text as bytes and as characters, and what is kept"


def test_an_annotation_is_of_the_image_of_its_question(tmp_path, caplog):
  questions, annotations = vqa(tmp_path)
  file = tmp_path / "v2_mscoco_train2014_annotations.json"
  for image, message in ((25, "it is about the image 9, its annotation in .* of 25"), ("9", "image_id a whole number")):
    write(file, damaged(annotations, ("annotations", 1, "image_id"), image))
    with pytest.raises(DataError, match=message + r".*--data.on-bad-record skip"):
      make_source(config("vqav2", tmp_path), "train")
    assert len(make_source(config("vqav2", tmp_path, on_bad_record="skip"), "train")) == 2
  write(file, annotations)
  questions["questions"].pop()
  write(tmp_path / "v2_OpenEnded_mscoco_train2014_questions.json", questions)
  assert len(make_source(config("vqav2", tmp_path), "train")) == 2
  assert "1 annotations have no question in" in caplog.text and "the first is of question_id 25000" in caplog.text


def test_answers_and_sentences_without_an_object_follow_the_rule(tmp_path):
  annotations = vqa(tmp_path)[1]
  file = tmp_path / "v2_mscoco_train2014_annotations.json"
  write(file, damaged(annotations, ("annotations", 1, "answers"), [" yes ", "no"]))
  assert make_source(config("vqav2", tmp_path), "train")[1]["answers"] == ["yes", "no"]
  write(file, damaged(annotations, ("annotations", 1, "answers"), ["yes", "a\0"]))
  with pytest.raises(DataError, match=r"\(question_id 9001\): its `answers` must be objects"):
    make_source(config("vqav2", tmp_path), "train")
  content = flickr(tmp_path)
  for text, good in ((" a cat ", True), ("", False), ("['a', None]", False)):
    write(tmp_path / "dataset_flickr30k.json", damaged(content, ("images", 0, "sentences"), [text]))
    if good:
      assert make_source(config("flickr30k", tmp_path), "train")[0]["captions"]["name"] == ["a cat"]
      continue
    with pytest.raises(DataError, match=r"images\[0\] \(0.jpg\): `sentences` must be objects"):
      make_source(config("flickr30k", tmp_path), "train")


def test_files_of_flickr_joined_to_themselves_are_named(tmp_path):
  content = flickr(tmp_path)
  write(tmp_path / "dataset_flickr30k.json", content | {"images": content["images"] * 2})
  with pytest.raises(DataError, match=r"images\[4\]: the image '0.jpg' is there twice"):
    make_source(config("flickr30k", tmp_path), "all")
  source = make_source(config("flickr30k", tmp_path, on_bad_record="skip"), "all")
  assert source.num_skipped == 4 and all(len(record["captions"]["name"]) == 2 for record in source)
  (tmp_path / "dataset_flickr30k.json").unlink()
  write(tmp_path / "results_20130124.token", "0.jpg#0\tone\n0.jpg#1\ttwo\n" * 2)
  with pytest.raises(DataError, match=r"line 3: 0.jpg#0 is there twice"):
    make_source(config("flickr30k", tmp_path), "all")
  source = make_source(config("flickr30k", tmp_path, on_bad_record="skip"), "all")
  assert source.num_skipped == 2 and source[0]["captions"]["name"] == ["one", "two"]


def test_words_are_learnt_without_reading_pictures(tmp_path, monkeypatch):
  vqa(tmp_path)
  source = make_source(config("vqav2", tmp_path), "train")
  monkeypatch.setattr("mmjax.data.vocabulary._MAX_RECORDS", 1)  # of texts; answers are counted to the last
  monkeypatch.setattr(type(source), "__getitem__", lambda *_: pytest.fail("a picture was read"))
  tokenizer = make_tokenizer(config("vqav2", tmp_path), source)
  assert tokenizer.answers == ("no", "yes") and np.all(tokenizer(["is it 0?"]) < tokenizer.vocab_size)

"""Folders of classes: what is in them, on which side of the split, and what is wrong with them."""

import numpy as np
import pytest
from PIL import Image

from mmjax.data import ClassFolders, ClassLabel, DataError, Reading


def paint(root, *paths):
  """An image of its own colour at every path."""
  for number, path in enumerate(paths):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (number, 99, 7)).save(file)
  return ClassFolders(path=str(root))


def test_folders_of_splits_are_the_splits(tmp_path):
  source = paint(tmp_path, "train/red_fox/1.png", "train/cat/b.JPG", "train/cat/a.png", "val/cat/c.png")
  train = source.open("train", Reading())
  assert [(record["label"], record["captions"]["name"][0]) for record in train] == [
    ("cat", "cat"),
    ("cat", "cat"),
    ("red_fox", "red fox"),
  ]
  assert train[2]["image"] == (tmp_path / "train/red_fox/1.png").read_bytes()
  assert [record["id"] for record in source.open("validation", Reading())] == [str(tmp_path / "val/cat/c.png")]
  assert len(source.open("all", Reading())) == 4
  assert train.fingerprint != source.open("all", Reading()).fingerprint


@pytest.mark.parametrize("names", [("Train", "Test"), ("Training", "Testing"), ("TRAIN", "dev"), ("train", "held-out")])
def test_folders_of_splits_have_usual_names_in_any_case_of_letters(tmp_path, names):
  source = paint(tmp_path, *(f"{side}/{label}/{n}.png" for side in names for label in "ab" for n in (1, 2)))
  for side, split in zip(names, ("train", "validation")):
    records = source.open(split, Reading())
    assert [record["label"] for record in records] == ["a", "a", "b", "b"]
    assert all(f"/{side}/" in record["id"] for record in records)


def test_a_folder_of_tests_is_left_where_there_is_one_for_validation(tmp_path, caplog):
  source = paint(tmp_path, "train/a/1.png", "val/a/2.png", "test/3.png")
  assert ["/val/" in record["id"] for record in source.open("validation", Reading())] == [True]
  assert "test is not read: val is the folder for validation" in caplog.text


def test_a_folder_without_images_beside_those_of_splits_is_not_read(tmp_path, caplog):
  source = paint(tmp_path, "train/a/1.png", "val/a/2.png")
  (tmp_path / "cache/deep").mkdir(parents=True)
  (tmp_path / "cache/deep/x.npy").write_bytes(b"x")
  assert len(source.open("all", Reading())) == 2 and "cache is not read" in caplog.text
  paint(tmp_path, "cache/deep/1.png")
  with pytest.raises(DataError, match="cache is a folder beside train"):
    source.open("all", Reading())


def test_a_class_may_be_called_train(tmp_path):
  source = paint(tmp_path, "train/1.png", "car/2.png", "test tube/3.png")
  assert {record["label"] for record in source.open("all", Reading())} == {"train", "car", "test tube"}


def test_links_to_nothing_and_empty_classes_do_not_vanish(tmp_path):
  source = paint(tmp_path, "a/1.png", "b/2.png")
  (tmp_path / "c").mkdir()
  with pytest.raises(DataError, match=r"c is the folder of a class, and is empty.*--data.on-bad-record skip"):
    source.open("all", Reading())
  (tmp_path / "c/3.png").symlink_to(tmp_path / "gone.png")
  (tmp_path / "b/notes.txt").write_text("hello")
  with pytest.raises(DataError, match=r"notes.txt is not an image"):
    source.open("all", Reading())
  (tmp_path / "b/notes.txt").rename(tmp_path / "d.txt")
  with pytest.raises(DataError, match=r"3.png is a link to nothing. Restore it or move it away"):
    source.open("all", Reading())
  records = source.open("all", Reading(on_bad_record="skip"))
  assert (len(records), records.num_skipped) == (2, 2)


def test_without_them_equal_images_are_on_one_side(tmp_path):
  source = paint(tmp_path, *(f"{name}/{number}.png" for name in "ab" for number in range(40)))
  for path in sorted((tmp_path / "a").glob("*.png")):
    (tmp_path / "b" / f"copy{path.name}").write_bytes(path.read_bytes())
  train, validation = (source.open(split, Reading()) for split in ("train", "validation"))
  assert len(train) + len(validation) == 120 and 10 < len(validation) < 40
  assert not {record["image"] for record in train} & {record["image"] for record in validation}


def test_classes_are_numbered_by_name(tmp_path):
  source = paint(tmp_path, "train/b/1.png", "train/a/2.png", "train/b/3.png", "test/a/4.png", "test/c/5.png")
  column, train = ClassLabel(), source.open("train", Reading())
  learnt = column.fit(train)
  assert learnt == {"classes": ["a", "b"], "counts": [1, 2]}
  assert [int(column.row(record, None, learnt)) for record in train] == [0, 1, 1]
  validation = source.open("validation", Reading())
  assert int(column.row(validation[0], None, learnt)) == 0
  with pytest.raises(DataError, match=r"5.png: the class 'c' is not one of the 2 of the training data \(a, b\)"):
    column.row(validation[1], None, learnt)


def test_classes_may_be_numbers_and_no_image_is_read_to_know_them():
  class Records(list):
    def __getitem__(self, index):
      raise AssertionError("an image was read")

    def without_image(self, index):
      return {"id": str(index), "digit": np.int64(index % 3)}

  assert ClassLabel("digit").fit(Records([None] * 7)) == {"classes": ["0", "1", "2"], "counts": [3, 2, 2]}


def labels(*values):
  return [{"id": f"{place}.png", "label": value} for place, value in enumerate(values)]


def test_one_class_has_one_name_whatever_spaces_and_forms_of_unicode():
  column, records = ClassLabel(), labels("caf\u00e9", "cafe\u0301", "dog", "dog ", " dog")
  learnt = column.fit(records)
  assert learnt == {"classes": ["caf\u00e9", "dog"], "counts": [2, 3]}
  assert [int(column.row(record, None, learnt)) for record in records] == [0, 0, 1, 1, 1]
  with pytest.raises(DataError, match=r"1.png.*'nan', which stands for a missing value.*setting `missing`"):
    column.fit(labels("dog", "nan"))
  assert ClassLabel(missing=()).fit(labels("dog", "None"))["classes"] == ["None", "dog"]
  with pytest.raises(DataError, match=r"the classes '1' and '1.0', which are one value"):
    column.fit(labels("1", "1.0", "2"))
  learnt = column.fit(labels(1, 2, "01"))
  assert [int(column.row(record, None, learnt)) for record in labels("2.0", 1, "01")] == [2, 1, 0]


@pytest.mark.parametrize("value", ["NA", "nan", "None", " null ", "N/A", "<NA>", "\\N"])
def test_words_for_a_missing_value_are_no_classes(value):
  with pytest.raises(DataError, match="cat.png: the field 'label' is .*, which stands for a missing value"):
    ClassLabel().fit([{"id": "cat.png", "label": value}])


@pytest.mark.parametrize("value", [True, None, "", 1.5, ["a"], "  ", "\u200b", "a\0"])
def test_what_is_no_class_is_named(value):
  with pytest.raises(DataError, match="cat.png: the field 'label' is .*, not the name or number of a class"):
    ClassLabel().fit([{"id": "cat.png", "label": value}])


@pytest.mark.parametrize(
  ("paths", "split", "said"),
  [
    (
      ["train/a/1.png"],
      "validation",
      "has no folder for validation, only train. Make one of validation, valid, val, dev",
    ),
    (["a/1.png", "b.png"], "train", "b.png is a file beside the folders of the classes"),
    (["a/1.png"], "trian", "split of class folders"),
    (["val/a/1.png", "test/b/1.png"], "train", "has no folder for train, only val. Make one of train, training"),
    (
      ["train/a/1.png", "dog/1.png", "val/a/2.png"],
      "train",
      "dog is a folder beside train, which .* a split. .*move it",
    ),
    (["train/a/1.png", "Training/a/2.png"], "train", "has Training and train, which are both folders for train"),
    (["val/a/1.png", "valid/a/2.png"], "validation", "has val and valid, which are both folders for validation"),
    (["seg_train/a/1.png", "seg_test/a/2.png"], "train", "seg_test has folders .* name says validation: rename it"),
    (
      ["animals/cat/1.png", "animals/dog/1.png"],
      "train",
      "cat is a folder in that of .* --data.source.path .*/animals if",
    ),
    (
      ["train/x/cat/1.png", "train/x/dog/1.png"],
      "train",
      "cat is a folder in that of .* --data.source.path .*/train/x if",
    ),
    (["train/1.png", "val/2.png"], "train", "1.png is a file beside the folders of the classes"),
  ],
)
def test_wrong_layouts_are_named(tmp_path, paths, split, said):
  with pytest.raises(DataError, match=said):
    paint(tmp_path, *paths).open(split, Reading())


def test_what_is_no_image_is_named(tmp_path):
  source = paint(tmp_path, "train/a/1.png")
  (tmp_path / "train/a/notes.txt").write_text("hello")
  with pytest.raises(DataError, match=r"notes.txt is not an image"):
    source.open("train", Reading())
  (tmp_path / "train/a/notes.txt").rename(tmp_path / "train/a/.hidden")
  assert len(source.open("train", Reading())) == 1


def test_one_class_is_nothing_to_learn(tmp_path):
  records = paint(tmp_path, "train/a/1.png", "train/a/2.png").open("train", Reading())
  with pytest.raises(DataError, match="all 2 training records have the class 'a' in the field 'label'"):
    ClassLabel().fit(records)


def test_what_is_no_directory_is_named(tmp_path):
  with pytest.raises(DataError, match="is not a directory"):
    ClassFolders(path=str(tmp_path / "none")).open("train", Reading())
  with pytest.raises(DataError, match=r"needs --data.source.path DIR: DIR/train/CLASS/IMAGE"):
    ClassFolders().open("train", Reading())
  with pytest.raises(DataError, match="has no images of this split"):
    ClassFolders(path=str(tmp_path)).open("train", Reading())


def test_an_image_that_cannot_be_read_is_named(tmp_path, monkeypatch):
  source = paint(tmp_path, "a/1.png", "b/2.png")

  def unreadable(path):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr("pathlib.Path.read_bytes", unreadable)
  with pytest.raises(DataError, match=r"Cannot read .*1.png: Permission denied. Restore it or move it away"):
    source.open("train", Reading())

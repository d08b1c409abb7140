"""Files of captions: CSV, TSV, semicolons and JSON lines; and the images that they name."""

import os
import unicodedata

import pytest

from mmjax.data import DataError, Folder, Reading
from mmjax.data.image_names import find_image
from tests.data.shard_files import picture


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "sub").mkdir()
  for number, name in enumerate(["a.png", "b.jpg", "sub/c.png"]):
    (tmp_path / name).write_bytes(picture(number))
  return tmp_path


def opened(folder, content, name="captions.csv", split="all", on_bad_record="error", **settings):
  (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  return Folder(str(folder), captions_file=name, **settings).open(split, Reading(on_bad_record=on_bad_record))


def read(*arguments, **settings):
  """{file name: captions}"""
  return {os.path.basename(r["id"]): r["captions"]["name"] for r in opened(*arguments, **settings)}


SECOND = '{"image": "b.jpg", "text": "\\"hi\\"\\nthere"}'
EXPECTED = {"a.png": ["a man, a plan; a canal"], "b.jpg": ['"hi"\nthere']}


@pytest.mark.parametrize(
  "name, content",
  [
    ("C4.CSV", 'image,caption\na.png,"a man, a plan; a canal"\nb.jpg,"""hi""\nthere"\n'),
    ("x.tsv", 'image\tcaption\na.png\ta man, a plan; a canal\nb.jpg\t"""hi""\nthere"\n'),
    ("x.TAB", 'image\tcaption\r\na.png\ta man, a plan; a canal\r\nb.jpg\t"""hi""\nthere"\r\n'),
    ("x.csv", 'image;caption\na.png;"a man, a plan; a canal"\nb.jpg;"""hi""\nthere"\n'),
    ("y.csv", 'image\tcaption\na.png\ta man, a plan; a canal\nb.jpg\t"""hi""\nthere"\n'),
    ("y.tsv", '\ufefffile_name,x,title\n"a.png",1,"a man, a plan; a canal"\n\nb.jpg,2,"""hi""\nthere"\n'),
    ("z.csv", 'image, caption\na.png, a man\nb.jpg,"""hi""\nthere"\n'),
    ("x.ndjson", '{"image": "a.png", "caption": "a man, a plan; a canal"}\n' + SECOND),
    ("x.JSONL", '\ufeff{"image": "a.png", "captions": ["a man, a plan; a canal"]}\n\n' + SECOND),
  ],
)  # fmt: skip
def test_what_a_file_is_follows_from_its_extension_and_header(folder, name, content):
  expected = EXPECTED | ({"a.png": ["a man"]} if name == "z.csv" else {})
  assert read(folder, content, name) == expected


@pytest.mark.parametrize("text", ["one\n\ntwo, three", "none.png, a file\nfour.png,x", "a.png", "x\na.png", "\n,a.png"])
def test_a_text_of_several_lines_is_a_text(folder, text):
  assert read(folder, f'image,caption\na.png,"{text}"\n')["a.png"] == [text.strip()]


BAD_ROWS = [
  ("x.csv", "image,caption\na.png,a man, a plan, a canal\n", r"x.csv, line 2: 4 fields, .* has 2. .*','.*quotes"),
  ("x.csv", "image,caption\na.png,a cat,\n", r"line 2: 3 fields"),
  ("x.csv", "image;caption\na.png;a man; a plan\n", r"line 2: 3 fields, and the header has 2.*';'"),
  ("x.tsv", "image\tcaption\na.png\ta\tb\n", r"x.tsv, line 2: 3 fields.*quotes"),
  ("x.csv", "image,caption,split\na.png,a cat\n", r"line 2: 2 fields, and the header has 3"),
  ("x.csv", 'image,caption\na.png,"a cat" on a mat\n', r"line 2 .to line 2.: .*expected after.*double those"),
  ("x.csv", 'image,caption\na.png, "a cat"\n', r"line 2: a space before a double quote"),
  ("x.csv", 'image,caption\na.png,"a cat\n', r"line 2 .to line 2.: unexpected end of data"),
  ("x.csv", 'image,caption\na.png,"wide\nsub/c.png,dog"\n', r"line 2: the field 'caption' goes over .*'sub/c.png,dog'"),
  ("x.tsv", 'image\tcaption\na.png\t"5 ft\r\na.png\t27"\n', r"line 2: .*looks like a row"),
  ("x.csv", 'image;caption\na.png;"wide\n./b.jpg;dog\n"\n', r"line 2: the field 'caption' .*looks like a row"),
  ("x.csv", 'image,caption\na.png,a\0b\n', r"line 2: the field 'caption' has a NUL"),
  ("x.csv", "image,caption,split\na.png,a,tarin\n", r"line 2: the field 'split' is 'tarin'. Write train, .*, val"),
  ("x.jsonl", '{"image": "a.png", "caption": "a", "split": 1}\n', r"line 1: the field 'split' is 1"),
  ("x.jsonl", '{"image": "a.png", "caption": NaN}\n', r"x.jsonl, line 1: the field 'caption' is nan, neither a text"),
  ("x.jsonl", '{"image": "a.png", "caption": ["a", null]}\n', r"line 1: .* is \['a', None\], neither"),
  ("x.jsonl", '{"image": "a.png", "caption": {"en": "a"}}\n', r"line 1: .* is \{'en': 'a'\}, neither"),
  ("x.jsonl", '{"image": "a.png", "caption": true}\n', r"line 1: .* is True, neither"),
  ("x.jsonl", '{"image": "a.png", "caption": "a", "caption": "b"}\n', r"line 1: .*the field 'caption' is there twice"),
  ("x.jsonl", '{"image": 5, "caption": "a"}\n', r"line 1: the name of the image is 5, not a text"),
  ("x.jsonl", '{"image": {"path": "a.png"}, "caption": "a"}\n', r"line 1: the name of the image is \{'path'"),
  ("x.jsonl", '{"image": "a.png", "caption": "a"}{"image": "b.jpg", "caption": "b"}\n', r"line 1: not JSON"),
  ("x.jsonl", '{"image": "a.png", "words": "a"}\n', r"line 1: none of the columns caption"),
  ("x.json", '[{"image": "a.png", "caption": "a"}]\n', r"line 1: .*not an object.*Each line must be one object"),
]  # fmt: skip


@pytest.mark.parametrize("name, content, message", BAD_ROWS)
def test_rows_of_the_wrong_form_are_refused_or_skipped(folder, name, content, message):
  with pytest.raises(DataError, match=message):
    opened(folder, content, name)
  good = {".csv": "b.jpg,a dog\n", ".tsv": "b.jpg\ta dog\n"}.get(name[1:], '{"image": "b.jpg", "caption": "a dog"}\n')
  if ";" in content.split("\n")[0]:
    good = good.replace(",", ";")
  if "split" in content:
    good = good.replace("\n", ",val\n").replace("},val", ', "split": "val"}')
  if "end of data" in message:  # nothing can follow
    with pytest.raises(DataError, match=rf"lists no image.*The last of 1 skipped rows: .*{message}"):
      opened(folder, content, name, on_bad_record="skip")
    return
  source = opened(folder, content + good, name, on_bad_record="skip")
  assert (source.num_skipped, len(source)) == (1, 1) and source[0]["captions"]["name"] == ["a dog"]


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("x.csv", "image|caption\na.png|a\n", r"line 1: none of the columns image, .*only 'image|caption'. Rename"),
    ("x.csv", "image,caption,caption\na.png,a,b\n", r"line 1: the column 'caption' is there 2 times"),
    ("x.csv", "image,caption,Split,SPLIT\na.png,a,train,val\n", r"'split' is there 2 times \('Split', 'SPLIT'\)"),
    ("x.csv", "Image,IMAGE,caption\na.png,b.png,a\n", r"line 1: the column 'image' is there 2 times"),
    ("x.csv", "image,caption,split,split\na.png,a,train,val\n", r"line 1: the column 'split' is there 2 times"),
    ("x.csv", "a.png,a cat\n", r"line 1: none of the columns image, .*only 'a.png', 'a cat'"),
    ("x.csv", "\na.png,a cat\n", r"line 1: none of the columns image, .*only an empty line"),
    ("x.csv", "image,caption\na.png,é\n".encode("latin-1"), r"Cannot read .*x.csv.*UTF-8"),
    ("x.csv", "image,caption\na.png,a\n".encode("utf-16"), r"Cannot read .*x.csv.*UTF-8"),
    ("x.csv", "image,caption\na.png,a\n".encode("utf-16-le"), r"line 1: none of the columns image"),
    ("x.csv.gz", "image,caption\na.png,a\n", r"x.csv.gz: a file of captions is .csv, .*Rename it"),
    ("x.txt", "image,caption\na.png,a\n", r"x.txt: a file of captions is .csv, "),
    ("x.csv", 'image,caption\na.png,"' + "a\n" * 80_000 + '"\nb.jpg,b\n', r"line 2 .*field larger than"),
  ],
)
@pytest.mark.parametrize("on_bad_record", ["error", "skip"])
def test_files_that_are_none_are_refused_as_a_whole(folder, name, content, message, on_bad_record):
  with pytest.raises(DataError, match=message):
    opened(folder, content, name, on_bad_record=on_bad_record)


def test_the_split_of_a_line_counts_in_any_case_of_letters(folder):
  lines = '{"Image": "a.png", "caption": "a", "Split": "test"}\n{"image": "b.jpg", "caption": "b", "SPLIT": "train"}'
  assert opened(folder, lines, "x.jsonl", split="train")[0]["captions"]["name"] == ["b"]


def test_a_split_is_given_in_all_rows_or_in_none_and_once_for_an_image(folder):
  with pytest.raises(DataError, match=r"line 3: a split is given here or in .*line 2, but not in both"):
    opened(folder, "image,caption,split\na.png,a,train\nb.jpg,b,\n")
  with pytest.raises(DataError, match=r"line 2: a split is given here or in .*line 1, but not in both"):
    opened(folder, '{"image": "a.png", "caption": "a"}\n{"image": "b.jpg", "caption": "b", "split": "test"}', "x.jsonl")
  with pytest.raises(DataError, match=r"line 3: 'sub/../a.png' is for validation, but for train in .*line 2"):
    opened(folder, "image,caption,split\na.png,a,train\nsub/../a.png,b,Test \n")
  source = opened(folder, "image,caption,split\na.png,a,train\na.png,b,val\n", split="train", on_bad_record="skip")
  assert source.num_skipped == 1 and source[0]["captions"]["name"] == ["a"]


NAMES = ["a.png", "./a.png", "sub/../a.png", ".//a.png", "link.png", "hard.png", "{here}/a.png"]


def test_a_file_is_one_image_whatever_its_names(folder):
  (folder / "link.png").symlink_to(folder / "a.png")
  (folder / "hard.png").hardlink_to(folder / "a.png")
  names = [name.replace("{here}", str(folder)) for name in NAMES]
  rows = [f"{name},caption {number}\n" for number, name in enumerate(names)]
  for order in (rows, rows[::-1]):
    (record,) = opened(folder, "image,caption\n" + "".join(order))
    assert sorted(record["captions"]["name"]) == [f"caption {number}" for number in range(len(NAMES))]


def test_the_split_of_a_file_is_that_of_its_name_in_normal_form(tmp_path, monkeypatch):
  """Each of 60 images in one split, the same one, however the file of captions writes its name."""
  plain = [f"é b{number}.JPG" for number in range(60)]
  for name in plain:
    (tmp_path / name).write_bytes(b"x")
  forms = [
    lambda name: name, lambda name: f"./{name}", lambda name: f"x/..//{name}", lambda name: f"{tmp_path}/{name}",
    lambda name: unicodedata.normalize("NFD", name),
  ]  # fmt: skip
  (tmp_path / "x").mkdir()
  seen = set()
  for form in forms:
    rows = "image,caption\n" + "".join(f"{form(name)},x\n" for name in plain)
    parts = {part: opened(tmp_path, rows, split=part) for part in ("train", "validation")}
    names = {part: frozenset(os.path.basename(record["id"]) for record in parts[part]) for part in parts}
    assert names["train"] | names["validation"] == set(plain) and not names["train"] & names["validation"]
    seen.add(names["validation"])
    monkeypatch.chdir(tmp_path.parent)
    near = Folder(tmp_path.name, captions_file="captions.csv").open("validation", Reading())
    assert {os.path.basename(record["id"]) for record in near} == names["validation"], "also from a relative path"
  assert len(seen) == 1 and seen.pop()


@pytest.mark.parametrize("on_disk, asked", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_found_in_either_form_of_unicode(tmp_path, on_disk, asked):
  forms = {form: unicodedata.normalize(form, "Käse/höhle ガ.png") for form in ("NFC", "NFD")}
  (tmp_path / os.path.dirname(forms[on_disk])).mkdir()
  (tmp_path / forms[on_disk]).write_bytes(b"1")
  (record,) = opened(tmp_path, f"image,caption\n{forms[asked]},a\n{forms[on_disk]},b\n")
  assert record["captions"]["name"] == ["a", "b"] and record["id"] == str(tmp_path / forms[on_disk])


def test_two_files_in_two_forms_of_unicode_are_two_images(tmp_path):
  for form in ("NFC", "NFD"):
    (tmp_path / unicodedata.normalize(form, "é.png")).write_bytes(form.encode())
  if len(list(tmp_path.iterdir())) == 2:  # not so on macOS
    rows = "".join(f"{unicodedata.normalize(form, 'é.png')},{form}\n" for form in ("NFC", "NFD"))
    records = opened(tmp_path, "image,caption\n" + rows)
    assert [record["image"] for record in records] == [b"NFC", b"NFD"]


@pytest.mark.parametrize(
  "name, message",
  [
    ("A.png ", "no image 'A.png ' in .*, but 'a.png'"), (" a.png", "no image ' a.png' in .*, but 'a.png'"),
    (r"sub\c.png", r"no image .* in .*, but 'sub/c.png'"), ("a", "no image 'a' in .*, but 'a.png'"),
    ("sub", "no image 'sub'"), ("a.png/", "no image"), ("", "there is no image ''"),
    ("a\0.png", "the name of the image has a NUL"),
    ("x" * 5000, "no image"), (None, "name of the image is empty"), (float("nan"), "name of the image is nan"),
  ],
)  # fmt: skip
def test_a_name_that_is_not_there_is_not_guessed(folder, name, message):
  with pytest.raises(DataError, match=rf"^here: .*{message}"):
    find_image(folder, name, "here")


def test_names_with_spaces_and_backslashes_are_exact(folder):
  for number, name in enumerate(["a.png ", " a.png", r"sub\c.png", "A.png", "x;y,z.png"]):
    (folder / name).write_bytes(picture(10 + number))
  content = 'image,caption\n"a.png ",1\n" a.png",2\nsub\\c.png,3\nA.png,4\n"x;y,z.png",5\na.png,6\nsub/c.png,7\n'
  assert len(read(folder, content)) == 7 and len(opened(folder, content)) == 7

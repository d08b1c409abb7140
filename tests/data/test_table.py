"""Tables: scales and vocabularies from the training rows, missing values, files of three formats, and what is wrong."""

import dataclasses
import io

import numpy as np
import PIL.Image
import pyarrow
import pytest
from pyarrow import parquet
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from mmjax.data import DataConfig, DataError, Number, Present, Reading, Table, TableFile, evaluation_batches
from mmjax.data.batching import Batcher
from mmjax.data.columns.fitting import fit_columns
from mmjax.data.columns.table import MISSING
from mmjax.data.transforms import eval_transform

ROWS = [
  {"id": "a", "hp": "10", "cost": 3, "kind": "elf"},
  {"id": "b", "hp": " 30.0", "cost": 5, "kind": "orc"},
  {"id": "c", "hp": "NA", "cost": 7.5, "kind": None},
  {"id": "d", "hp": "50", "cost": 0, "kind": "elf"},
]
COLUMN = Table(numeric=("hp", "cost"), categorical=("kind",))


def test_numbers_are_scaled_categories_numbered_and_missing_values_marked():
  fitted = fit_columns({"table": COLUMN}, ROWS)["table"]
  assert fitted["categorical"] == {"kind": ["elf", "orc"]}
  found = np.stack([COLUMN.row(row, None, fitted) for row in ROWS])
  np.testing.assert_allclose(
    found[[0, 1, 3], 0, 0], StandardScaler().fit_transform([[10], [30], [50]])[:, 0], rtol=1e-6
  )
  costs = StandardScaler().fit_transform([[3], [5], [7.5], [0]])[:, 0]
  np.testing.assert_allclose(found[:, 1, 0], costs, rtol=1e-6)
  np.testing.assert_array_equal(found[:, 2, 0], [1, 2, 0, 1])
  np.testing.assert_array_equal(found[..., 1], [[0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]])


def test_a_new_category_is_unknown_and_a_rare_one_is_too():
  fitted = COLUMN.fit(ROWS)
  new = {"id": "e", "hp": 1, "cost": 1, "kind": "troll"}
  assert COLUMN.row(new, None, fitted)[2].tolist() == [0, 0]
  assert [COLUMN.unknown(row, "kind", fitted) for row in (*ROWS, new)] == [False] * 4 + [True]
  rare = dataclasses.replace(COLUMN, min_count=2)
  assert rare.row(ROWS[1], None, rare.fit(ROWS))[2].tolist() == [0, 0]


@pytest.mark.parametrize(
  "names, other, others",
  [(("True", "False"), "true", "TRUE"), (("1", "2.5"), "1.0", "1."), (("3.0", "x"), "3", "3.00")],
)
def test_one_value_in_two_words_is_one_category_or_an_error(names, other, others):
  """1 and 1.0, true and True: both in the training data is an error; one of them in new data is the other."""
  column, rows = Table(categorical=("c",)), [{"id": name, "c": name} for name in names]
  fitted = column.fit(rows)
  place = fitted["categorical"]["c"].index(names[0]) + 1.0
  for word in (names[0], other, others):
    assert column.row({"id": "", "c": word}, None, fitted).tolist() == [[place, 0.0]]
    assert not column.unknown({"c": word}, "c", fitted)
  assert column.row({"id": "", "c": "01"}, None, fitted).tolist() == [[0.0, 0.0]]
  with pytest.raises(DataError, match="has the categories .* and .*, which are one value"):
    column.fit([*rows, {"id": "", "c": other}])
  assert column.fit([{"id": "", "c": "01"}, {"id": "", "c": "1"}])["categorical"] == {"c": ["01", "1"]}
  old = {"scaling": "standard", "numeric": {}, "categorical": {"c": ["e\u0301"]}}  # of a run before names had one form
  for form in ("e\u0301", "\u00e9"):
    assert column.row({"id": "", "c": form}, None, old).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "#N/A", "\\N"])
def test_a_word_for_a_missing_value_is_no_category(word):
  column, rows = Table(categorical=("c",)), [{"id": "", "c": name} for name in ("a", "b", word)]
  with pytest.raises(DataError, match=r"the field 'c' .* as a category, which stands for .* in `missing`"):
    column.fit(rows)
  column = dataclasses.replace(column, missing=(*MISSING, word.casefold()))
  assert column.fit(rows)["categorical"] == {"c": ["a", "b"]}


def test_quantiles_are_normal_scores():
  values = np.random.default_rng(0).exponential(size=101)
  rows = [{"id": str(place), "x": value} for place, value in enumerate(values)]
  column = Table(numeric=("x",), scaling="quantile")
  fitted = column.fit(rows)
  reference = QuantileTransformer(n_quantiles=101, output_distribution="normal").fit(values[:, None])
  inside = np.linspace(*np.quantile(values, [0.01, 0.99]), 20)
  found = [column.row({"id": "", "x": value}, None, fitted)[0, 0] for value in inside]
  np.testing.assert_allclose(found, reference.transform(inside[:, None])[:, 0], atol=1e-5)
  edges = [float(column.row({"id": "", "x": value}, None, fitted)[0, 0]) for value in (-1e9, 1e9)]
  assert edges == pytest.approx([-3.0902, 3.0902], abs=1e-3)
  same = [{"id": "", "x": 7}] * 3
  assert column.row(same[0], None, column.fit(same))[0, 0] == 0  # equal numbers count as their middle


def test_equal_numbers_have_a_deviation_of_one():
  rows, column = [{"id": "", "x": 0.1}] * 10, Table(numeric=("x",))  # 0.1 is not the mean of ten times 0.1 in float64
  fitted = column.fit(rows)
  assert fitted["numeric"]["x"]["std"] == 1 and abs(column.row(rows[0], None, fitted)[0, 0]) < 1e-15
  huge = column.row({"id": "", "x": 1e30}, None, {**fitted, "numeric": {"x": {"mean": 0.0, "std": 1e-20}}})
  assert huge[0, 0] == np.float32(1e30)  # float32 has no such number of deviations


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"hp": "ten"}, "a: the field 'hp' is 'ten', not a number.*list the field in `categorical`"),
    ({"hp": True}, "a: the field 'hp' is True, not a finite number"),
    ({"hp": [1]}, r"a: the field 'hp' is \[1\], not a number"),
    ({"hp": "nan"}, "a: the field 'hp' is 'nan', not a finite number.*Leave the field empty"),
    ({"hp": float("nan")}, "a: the field 'hp' is nan, not a finite number"),
    ({"hp": float("-inf")}, "not a finite number"),
    ({"hp": 1e31}, "not a finite number .up to 1e.30"),
    ({"hp": 10**400}, "not a number"),
    ({"kind": 1.5}, "a: the field 'kind' is 1.5, not the name of a category.*list the field in `numeric`"),
    ({"kind": {}}, "a: the field 'kind' is {}, not the name of a category"),
  ],
)
def test_a_value_of_another_type_is_named(change, said):
  with pytest.raises(DataError, match=said):
    COLUMN.fit([ROWS[0] | change, *ROWS[1:]])
  with pytest.raises(DataError, match=said):
    COLUMN.row(ROWS[0] | change, None, COLUMN.fit(ROWS))


def test_a_field_that_vanished_or_has_no_value_is_named():
  with pytest.raises(
    DataError, match=r"a: there is no field 'hp', which the column Table reads; there are 'cost', 'id'"
  ):
    COLUMN.check({"id": "a", "cost": 3})
  with pytest.raises(DataError, match="the field 'hp' of the table is missing in all 1 training records"):
    COLUMN.fit(ROWS[2:3])
  with pytest.raises(DataError, match=r"names no field of the records: set --data.columns.table.numeric"):
    Table().arrays("table", None)
  with pytest.raises(ValueError, match="'hp' of a table is listed 2 times"):
    Table(numeric=("hp",), categorical=("hp",))


def test_values_that_another_column_learned_are_refused():
  fitted = COLUMN.fit(ROWS)
  for changed in (Table(numeric=("hp",)), dataclasses.replace(COLUMN, scaling="quantile")):
    with pytest.raises(DataError, match="are for the fields hp, cost, kind, and the column has hp"):
      changed.row(ROWS[0], None, fitted)
  with pytest.raises(DataError, match="for the fields none"):
    COLUMN.row(ROWS[0], None, None)


def test_nan_is_missing_if_the_settings_say_so():
  column = dataclasses.replace(COLUMN, missing=("nan",))
  assert column.number({"id": "", "hp": float("nan")}, "hp") is None and column.number({"hp": "NaN"}, "hp") is None
  assert column.category({"kind": 3.0}, "kind") == "3"  # beside missing ones, whole numbers are floats


def test_the_number_that_is_predicted_is_scaled_and_never_missing():
  column, rows = Number("cost"), ROWS
  fitted = column.fit(rows)
  found = np.array([column.row(row, None, fitted) for row in rows])
  np.testing.assert_allclose(found, StandardScaler().fit_transform([[3], [5], [7.5], [0]])[:, 0], rtol=1e-6)
  with pytest.raises(DataError, match="c: the field 'hp', which is predicted, is empty"):
    Number("hp").fit(rows)
  with pytest.raises(DataError, match="all 2 training records have the same number in the field 'hp'"):
    Number("hp").fit([rows[0]] * 2)


def test_modalities_that_a_record_lacks_are_marked():
  column = Present(("image", "text"))
  assert column.row({"id": "a"}, None, None).tolist() == [True, True]
  assert column.row({"id": "a", "missing": ("image",)}, None, None).tolist() == [False, True]
  with pytest.raises(DataError, match="a: it has none of image, text"):
    column.row({"id": "a", "missing": ("image", "text")}, None, None)


@pytest.fixture
def table(tmp_path):
  PIL.Image.new("RGB", (9, 9), (200, 10, 10)).save(tmp_path / "red.png")
  columns = {
    "picture": ["red.png", "", "red.png"],
    "words": ['an "elf", small', "an orc", ""],
    "hp": ["10", "30", ""],
    "split": ["train", "train", "validation"],
  }
  lines = [",".join(columns), '"red.png","an ""elf"", small",10,train', ",an orc,30,train", "red.png,,,validation"]
  (tmp_path / "units.csv").write_text("\ufeff" + "\n\n".join(lines) + "\n", encoding="utf-8")
  (tmp_path / "units.tsv").write_text("\n".join("\t".join(row) for row in zip(*_quoted(columns))), encoding="utf-8")
  typed = columns | {"hp": [10, 30, None]}
  parquet.write_table(pyarrow.table(typed), tmp_path / "units.parquet")
  return tmp_path


def _quoted(columns):
  return [[name, *('"' + value.replace('"', '""') + '"' for value in values)] for name, values in columns.items()]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_three_formats_hold_the_same_records(table, kind):
  source = TableFile(path=str(table / f"units.{kind}"), image="picture", text="words")
  train, validation = (source.open(split, Reading()) for split in ("train", "validation"))
  assert [record["captions"]["name"] for record in train] == [['an "elf", small'], ["an orc"]]
  assert [record["missing"] for record in source.open("all", Reading())] == [(), ("image",), ("text",)]
  assert train[0]["image"] == validation[0]["image"] == (table / "red.png").read_bytes()
  assert PIL.Image.open(io.BytesIO(train[1]["image"])).getpixel((0, 0)) == (128, 128, 128)
  column = Table(numeric=("hp",))
  fitted = column.fit(train)
  assert fitted["numeric"] == {"hp": {"mean": 20.0, "std": 10.0}}
  assert column.row(validation[0], None, fitted).tolist() == [[0, 1]]
  assert train.fingerprint != validation.fingerprint and train[0]["id"].endswith(f"units.{kind}, row 1")


def test_batches_hold_the_table_and_the_modalities(table):
  source = TableFile(path=str(table / "units.csv"), image="picture")
  columns = {**source.columns, "table": Table(numeric=("hp",)), "present": Present(("image", "table"))}
  config = DataConfig(source=source, columns=columns)
  records = source.open("all", Reading())
  fitted = fit_columns(columns, records)
  batch = Batcher(config, records, None, 8, 0, fitted)(np.zeros(3, int), np.arange(3)).batch
  assert batch["table"].shape == (3, 1, 2) and batch["image"].shape == (3, 8, 8, 3)
  assert batch["present"].tolist() == [[True, True], [False, True], [True, True]]
  (shown,) = evaluation_batches(records, eval_transform(config, 8), None, batch_size=4, columns=columns, fitted=fitted)
  np.testing.assert_array_equal(shown["table"][:3], batch["table"])


def test_rows_of_one_group_are_on_one_side(tmp_path):
  lines = ["family,n", *(f"{number // 4},{number}" for number in range(400))]
  (tmp_path / "t.csv").write_text("\n".join(lines))
  source = TableFile(path=str(tmp_path / "t.csv"), group="family", validation_share=0.3)
  sides = [{record["family"] for record in source.open(split, Reading())} for split in ("train", "validation")]
  assert len(sides[0]) + len(sides[1]) == 100 and not sides[0] & sides[1] and 15 < len(sides[1]) < 45


def test_rows_of_one_image_are_on_one_side(tmp_path):
  """Whatever the names of its file are; images that are not there are told apart by their names."""
  for number in range(60):
    (tmp_path / f"{number}.png").write_bytes(b"x")
    (tmp_path / f"link{number}.png").symlink_to(tmp_path / f"{number}.png")
  forms = ("{}.png", "./{}.png", "x/../{}.png", "link{}.png", "gone/{}.png", "")
  (tmp_path / "x").mkdir()
  rows = [f"{form.format(n)},words {n} {k}" for n in range(60) for k, form in enumerate(forms)]
  (tmp_path / "t.csv").write_text("file,words\n" + "\n".join(rows))
  source = TableFile(path=str(tmp_path / "t.csv"), image="file", text="words")
  sides = {split: source.open(split, Reading()) for split in ("train", "validation")}
  found = {
    split: [records.without_image(n)["words"].split() for n in range(len(records))] for split, records in sides.items()
  }
  assert sum(map(len, found.values())) == 360
  images = {split: {number for _, number, form in words if int(form) < 4} for split, words in found.items()}
  assert not images["train"] & images["validation"] and 4 < len(images["validation"]) < 24
  assert len({number for _, number, form in found["validation"] if form == "5"}) > 4, (
    "rows without an image by themselves"
  )


def test_the_column_of_the_split_counts_in_any_case_of_letters(tmp_path):
  (tmp_path / "t.csv").write_text("n,Split\n" + "".join(f"{n},{('TRAIN', 'val', 'test')[n % 3]}\n" for n in range(9)))
  source = TableFile(path=str(tmp_path / "t.csv"))
  found = {split: [record["n"] for record in source.open(split, Reading())] for split in ("train", "validation")}
  assert found == {"train": ["0", "3", "6"], "validation": ["1", "2", "4", "5", "7", "8"]}
  with pytest.raises(DataError, match=r"there is no column 'fold', only n, Split. Check --data.source.split"):
    dataclasses.replace(source, split="fold").open("train", Reading())
  (tmp_path / "t.csv").write_text("n,Split,SPLIT\n1,train,val\n")
  with pytest.raises(DataError, match=r"t.csv: the column 'split' is there 2 times \('Split', 'SPLIT'\)"):
    source.open("train", Reading())


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("a,b\n", r"t.csv: the table has no rows, only the columns 'a', 'b'"),
    ("", "the table has no rows"),
    ("a,b\n1,2,3\n", r"t.csv, row 1, line 2: 3 fields, and the header has 2"),
    ('a,b\n1,2\n1,"2\n', r"t.csv, row 2, line 3 .*: unexpected end of data"),
    ("a,a\n1,2\n", "the column 'a' is there 2 times"),
    ("a,\n1,2\n", "the column '' has no name"),
    ("a,concept\n1,2\n", "the column 'concept' is reserved. Rename it"),
    ("a,split\n1,tset\n", "row 1: the field 'split' is 'tset'. Write train or validation"),
    ("a,split\n1,validation\n", "none of the 1 rows is in the split 'train'"),
  ],
)
def test_a_bad_table_is_named(tmp_path, text, said):
  (tmp_path / "t.csv").write_text(text)
  with pytest.raises(DataError, match=said):
    TableFile(path=str(tmp_path / "t.csv")).open("train", Reading())


@pytest.mark.parametrize(
  ("row", "said"),
  [
    ('red.png, "a cat",1', "row 2, line 3: a space before a double quote"),
    ("red.png,a\0,1", "row 2, line 3: the field 'words' has a NUL character"),
    ("red.png,a,1,2", "row 2, line 3: 4 fields"),
    ('red.png,"a\nred.png,b",1', "row 2, line 3: the field 'words' goes over several lines, and one looks like a row"),
    ("red.png,nan,1", "row 2: the field 'words' is 'nan', which stands for a missing value"),
  ],
)  # fmt: skip
def test_texts_of_a_table_follow_the_rule_of_all_readers(table, row, said):
  rows = ("red.png,an orc,1", row, "red.png,an elf,2")
  (table / "t.csv").write_text("\n".join(("picture,words,n", *rows)))
  source = TableFile(path=str(table / "t.csv"), image="picture", text="words")
  with pytest.raises(DataError, match=r"t.csv, " + said + r".*--data.on-bad-record skip"):
    records = source.open("all", Reading())
    records[1]
  if "'nan'" not in said:  # which is skipped when it is read
    records = source.open("all", Reading(on_bad_record="skip"))
    assert records.num_skipped == 1
    assert [record["id"].rpartition(" ")[2] for record in records] == ["1", "3"], "rows keep their numbers"


def test_rows_that_a_text_has_swallowed_are_found_without_images(tmp_path):
  (tmp_path / "t.csv").write_text('n,words\n1,"a\n2,b"\n3,c\n')
  with pytest.raises(DataError, match=r"row 1, line 2: the field 'words' goes over several lines.*'2,b'"):
    TableFile(path=str(tmp_path / "t.csv"), text="words").open("all", Reading())
  (tmp_path / "t.csv").write_text('n,words\n1,"a\nwell, b\n\n3"\n3,c\n')
  assert len(TableFile(path=str(tmp_path / "t.csv"), text="words").open("all", Reading())) == 2


@pytest.mark.parametrize("name, delimiter", [("t.csv", ";"), ("t.csv", "\t"), ("t.tsv", "\t"), ("t.tsv", ",")])
def test_the_delimiter_is_that_of_the_header(table, name, delimiter):
  (table / name).write_text(delimiter.join(("picture", "words")) + "\n" + delimiter.join(("red.png", "an orc")))
  source = TableFile(path=str(table / name), image="picture", text="words")
  assert source.open("all", Reading())[0]["captions"] == {"name": ["an orc"]}


def test_bad_splits_are_counted(tmp_path):
  (tmp_path / "t.csv").write_text("n,split\n1,train\n2,tset\n3,test\n")
  records = TableFile(path=str(tmp_path / "t.csv")).open("train", Reading(on_bad_record="skip"))
  assert (len(records), records.num_skipped) == (1, 1)


def test_times_in_nanoseconds_have_a_remedy(tmp_path):
  times = pyarrow.array([1700000000000000200], pyarrow.timestamp("ns"))
  parquet.write_table(pyarrow.table({"time": times}), tmp_path / "t.parquet")
  try:
    records = TableFile(path=str(tmp_path / "t.parquet")).open("all", Reading())
    assert records[0]["time"].nanosecond == 200, "with pandas"
  except DataError as error:
    assert "the column 'time' has times in nanoseconds" in str(error) and "timestamp('us')" in str(error)


def test_a_file_that_is_none_is_named(tmp_path):
  (tmp_path / "t.csv").write_bytes(b"a\n\xff\n")
  (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
  (tmp_path / "t.txt").write_text("a\n1\n")
  for name, said in (("t.csv", "in UTF-8"), ("t.parquet", "It must be a Parquet"), ("t.txt", "a table is .csv, .tsv")):
    with pytest.raises(DataError, match=said):
      TableFile(path=str(tmp_path / name)).open("all", Reading())
  with pytest.raises(DataError, match="Cannot read .*no.csv"):
    TableFile(path=str(tmp_path / "no.csv")).open("all", Reading())
  (tmp_path / "t.csv").write_text("a,picture\n1,no.png\n")
  with pytest.raises(DataError, match=r"there is no column 'image', only 'a', 'picture'. Check --data.source.image"):
    TableFile(path=str(tmp_path / "t.csv"), image="image").open("all", Reading())
  with pytest.raises(DataError, match=r"row 1: the field 'picture': there is no image 'no.png'"):
    TableFile(path=str(tmp_path / "t.csv"), image="picture").open("all", Reading())[0]

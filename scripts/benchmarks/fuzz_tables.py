"""Fuzz targets of tables: CSV and Parquet files, and the columns that read their values."""

from pathlib import Path

from fuzz_inputs import Target, mutated

from mmjax.data import DataError, Reading, Table, TableFile


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


def _read(file: Path, data: bytes) -> None:
  """Reads the table, learns the column and makes every row."""
  file.write_bytes(data)
  records = TableFile(path=str(file), text="note").open("all", Reading())
  column = Table(numeric=("size",), categorical=("kind",))
  fitted = column.fit(records)
  for record in records:
    column.row(record, None, fitted)

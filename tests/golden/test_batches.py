"""The first batches of every source, to the bit: records, order, random numbers, tokenizer and transforms in one."""

import itertools
import typing

import pytest

from mmjax.data import DataConfig, eval_transform, evaluation_batches, make_loader, make_source, make_tokenizer
from tests.golden.sources import CASES, config_of
from tests.golden.values import check, digest, read

ROWS, SIDE = 8, 24


def batches(config: DataConfig) -> dict[str, list[dict[str, str]]]:
  """Digests of the entries of three training batches and of the first evaluation batch."""
  source, held_out = (make_source(config, split) for split in ("train", "validation"))
  tokenizer = make_tokenizer(config, source)
  loader = make_loader(config, source, tokenizer, image_size=SIDE, batch_size=ROWS, seed=5)
  training = list(itertools.islice(loader, 3))
  loader.close()
  evaluation = next(evaluation_batches(held_out, eval_transform(config, SIDE), tokenizer, batch_size=ROWS))
  digests = lambda batch: {name: digest(batch[name]) for name in sorted(batch)}
  return {"training": [digests(batch) for batch in training], "evaluation": [digests(evaluation)]}


@pytest.mark.parametrize("case", CASES)
def test_golden_batches(case, tmp_path, emoji):
  check("batches", case, batches(config_of(case, tmp_path, emoji)))


def test_golden_batches_are_of_every_source():
  sources = typing.get_args(typing.get_type_hints(DataConfig)["source"])
  assert {case.partition(",")[0] for case in CASES} == {*sources}
  assert CASES.keys() == read("batches").keys()

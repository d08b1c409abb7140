"""A few emoji, built once."""

import pytest

from mmjax.data import DataConfig
from tests.golden.sources import TOKENIZER


@pytest.fixture(scope="session")
def emoji(tmp_path_factory) -> DataConfig:
  return DataConfig(dir=str(tmp_path_factory.mktemp("emoji")), limit=40, tokenizer=TOKENIZER)

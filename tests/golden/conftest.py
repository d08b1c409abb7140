"""A few emoji, built once."""

import pytest

from mmjax.data import DataConfig, Emoji
from tests.golden.sources import TOKENIZER


@pytest.fixture(scope="session")
def emoji(tmp_path_factory) -> DataConfig:
  return DataConfig(source=Emoji(limit=40), dir=str(tmp_path_factory.mktemp("emoji")), tokenizer=TOKENIZER)

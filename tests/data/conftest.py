"""A small emoji data set, built once: about 60 emoji by each artist."""

import pytest

from mmjax.data import DataConfig, Emoji, TokenizerConfig, make_source, make_tokenizer
from tests.data.changed import with_source


@pytest.fixture(scope="session")
def emoji_config(tmp_path_factory):
  directory = tmp_path_factory.mktemp("mmjax")
  tokenizer = TokenizerConfig(vocab_size=400, max_length=16)
  return DataConfig(source=Emoji(limit=60), dir=str(directory), tokenizer=tokenizer)


@pytest.fixture(scope="session")
def train_source(emoji_config):
  return make_source(emoji_config, "train")


@pytest.fixture(scope="session")
def tokenizer(emoji_config, train_source):
  return make_tokenizer(emoji_config, train_source)


class ListSource(list):
  """Records held in a list."""


@pytest.fixture
def broken_source(train_source):
  """Ten records, of which 3 has a truncated picture and 4 an empty caption."""
  records = [dict(train_source[index]) for index in range(10)]
  records[3]["image"] = records[3]["image"][:200]
  records[4]["captions"] = {"name": [" "]}
  return ListSource(records)


@pytest.fixture
def plain_config(emoji_config):
  """Small batches, without other languages."""
  return with_source(emoji_config, languages=())

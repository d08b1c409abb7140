"""Configurations of data with other settings of their source."""

import dataclasses
from typing import Any

from mmjax.data import DataConfig


def with_source(config: DataConfig, **fields: Any) -> DataConfig:
  return dataclasses.replace(config, source=dataclasses.replace(config.source, **fields))

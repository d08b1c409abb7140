"""The tests of layers trace the branches of all platforms."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def branches(every_platform):
  return every_platform

"""What the tests of training share: compiled steps, and a data set of a few emoji."""

from collections.abc import Iterator

import pytest

from mmjax.train import loop
from tests.train.shared import prepared


@pytest.fixture(scope="module", autouse=True)
def shared_compilations() -> Iterator[None]:
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(loop, "prepare", lambda experiment, core, *, losses: prepared(experiment))
    yield


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
  return str(tmp_path_factory.mktemp("data"))

"""Fixtures for the tests of scripts."""

import jax
import pytest

from tests.experiments.tiny_study import TINY


@pytest.fixture
def one_device(monkeypatch):
  """Runs as on a laptop: programs for one device compile in two thirds of the time of those for eight."""
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)


@pytest.fixture(scope="module")
def options(tmp_path_factory):
  """Of a tiny study of emoji, whose data all tests of a module share."""
  return [*TINY, "--data.dir", str(tmp_path_factory.mktemp("data"))]

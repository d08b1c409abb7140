"""Fixtures for the tests of scripts."""

import jax
import pytest


@pytest.fixture
def one_device(monkeypatch):
  """Runs as on a laptop: programs for one device compile in two thirds of the time of those for eight."""
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)

"""The extras of setup.py bring the accelerators' compilers in the versions that the installed JAX goes with."""

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def extras_of_setup() -> dict[str, list[str]]:
  spec = importlib.util.spec_from_file_location("lock", ROOT / "scripts" / "lock.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.asked()


def required_by_jax(extra: str) -> dict[str, Requirement]:
  """{package: requirement} that JAX's own metadata adds for one of its extras."""
  assert extra in importlib.metadata.metadata("jax").get_all("Provides-Extra"), "pip only warns of an unknown extra"
  lines = map(Requirement, importlib.metadata.requires("jax"))
  return {line.name: line for line in lines if line.marker and line.marker.evaluate({"extra": extra})}


def brought(lines: list[str]) -> dict[str, Requirement]:
  """{package: requirement} of an extra of setup.py, the extras of JAX in it spelled out."""
  found = {}
  for line in map(Requirement, lines):
    if line.marker is None or line.marker.evaluate():
      found[line.name] = line
      for extra in line.extras if line.name == "jax" else ():
        found |= required_by_jax(extra)
  return found


@pytest.mark.parametrize(
  ("extra", "of_jax", "package"),
  [
    ("tpu", "tpu", "libtpu"),
    ("plan-tpu", "tpu", "libtpu"),
    ("cuda12", "cuda12", "jax-cuda12-plugin"),
    ("cuda13", "cuda13", "jax-cuda13-plugin"),
    ("plan-gpu", "cuda12-local", "jax-cuda12-plugin"),
  ],
)
def test_an_extra_brings_the_compiler_that_goes_with_jax(extra, of_jax, package):
  asked, needed = brought(extras_of_setup()[extra])[package], required_by_jax(of_jax)[package]
  assert (asked.specifier, asked.extras) == (needed.specifier, needed.extras)


def test_planning_for_gpus_takes_no_libraries_of_cuda():
  lines = brought(extras_of_setup()["plan-gpu"]).values()
  assert not any("with-cuda" in line.extras for line in lines)

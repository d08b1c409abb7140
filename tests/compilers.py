"""Tests that need a compiler for hardware that is not here."""

import importlib.util

import pytest

from tests.skips import GPU_COMPILER, TPU_COMPILER

needs_tpu_compiler = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason=TPU_COMPILER)
needs_gpu_compiler = pytest.mark.skipif(
  not any(importlib.util.find_spec(f"jax_cuda{version}_plugin") for version in (12, 13)), reason=GPU_COMPILER
)

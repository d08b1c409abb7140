"""Tests that need a compiler for hardware that is not here."""

import importlib.util

import pytest

needs_tpu_compiler = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install 'mmjax[plan-tpu]'"
)
needs_gpu_compiler = pytest.mark.skipif(
  importlib.util.find_spec("jax_cuda12_plugin") is None, reason="needs the GPU compiler: pip install 'mmjax[plan-gpu]'"
)

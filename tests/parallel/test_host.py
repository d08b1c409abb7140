"""The host's settings, tried in a process of their own."""

import json
import os
import subprocess
import sys

import pytest
from jaxlib import plugin_support

from mmjax.parallel import host

SCRIPT = """
import json, os, resource, sys
from mmjax.parallel import host
tuned = (host.tune_allocator(), host.tune_compiler()) if sys.argv[1] == "tune" else None
import jax, jax.numpy as jnp
f = jax.jit(lambda x: jnp.sort(jnp.sin(x[:, None] + x[None])).sum())
x = jnp.linspace(0.0, 1.0, 3000)
for _ in range(3):
  f(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
  f(x).block_until_ready()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps([tuned, faults, os.environ.get("XLA_FLAGS", "")]))
"""


def _run(argument, **environment):
  env = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
  done = subprocess.run([sys.executable, "-c", SCRIPT, argument], env=env, capture_output=True, text=True, check=True)
  return json.loads(done.stdout.splitlines()[-1])


def test_memory_that_a_step_frees_serves_the_next_one():
  tuned, faults, flags = _run("tune", XLA_FLAGS="")
  assert tuned == [True, True] and "scheduler=false" in flags
  _, plain_faults, _ = _run("leave", XLA_FLAGS="")
  assert faults < plain_faults / 4


@pytest.mark.parametrize(
  ("platforms", "plugin", "hardware", "cpu"),
  [
    ("cpu", True, True, True),
    ("", False, False, True),
    ("", True, False, True),  # the compiler is here for planning
    ("", True, True, False),
    ("cuda", False, False, False),
  ],
)
def test_a_compiler_without_its_hardware_changes_nothing(platforms, plugin, hardware, cpu, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", platforms)
  monkeypatch.setattr(host.importlib.util, "find_spec", lambda name: plugin or None)
  monkeypatch.setattr(host.glob, "glob", lambda pattern: [pattern] if hardware else [])
  assert host.on_cpu() == cpu


@pytest.mark.parametrize(
  ("version", "user", "flags"),
  [
    ("0.10.2", "", "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE {scheduler}=false"),
    ("0.12.0.1", "", "{scheduler}=false"),
    ("0.12.0.1", "{scheduler}=true", "{scheduler}=true"),  # what the user set stands
    ("0.99.0", "", ""),
  ],
)
def test_flags_are_those_measured_with_this_jaxlib(version, user, flags, monkeypatch, caplog):
  scheduler = "--xla_cpu_enable_concurrency_optimized_scheduler"
  monkeypatch.setattr(host.importlib.metadata, "version", lambda name: version)
  monkeypatch.setenv("XLA_FLAGS", user.format(scheduler=scheduler))
  assert host.tune_compiler() == (flags != user)
  assert os.environ["XLA_FLAGS"] == flags.format(scheduler=scheduler)
  assert ("jaxlib 0.99.0 trains on CPU with XLA's default flags" in caplog.text) == (version == "0.99.0")


def test_every_plugin_of_jax_has_its_hardware_s_files():
  known = {name for names in plugin_support._PLUGIN_MODULE_NAMES.values() for name in names}
  assert {"jax_cuda12_plugin", "jax_cuda13_plugin"} <= known <= set(host._ACCELERATORS)

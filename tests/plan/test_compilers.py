"""Compilers that do not go with the installed JAX are named before anything is compiled."""

import importlib.metadata

import pytest

from mmjax.plan import PlanError
from mmjax.plan.compilers import require_compiler

# As JAX 0.12.0.1 and its plugin declare them.
REQUIRES = {
  "jax": [
    "jaxlib<=0.12.0.1,>=0.11.2",
    'libtpu==0.0.50.*; extra == "tpu"',
    'jax-cuda12-plugin[with-cuda]<=0.12.0.1,>=0.12.0.1; extra == "cuda12"',
    'jax-cuda12-plugin<=0.12.0.1,>=0.12.0.1; extra == "cuda12-local"',
    'jax-cuda13-plugin<=0.12.0.1,>=0.12.0.1; extra == "cuda13-local"',
  ],
  "jax-cuda12-plugin": ["jax-cuda12-pjrt==0.12.0.1", 'nvidia-cublas-cu12>=12; extra == "with-cuda"'],
  "jax-cuda13-plugin": ["jax-cuda13-pjrt==0.12.0.1"],
}


@pytest.fixture
def install(monkeypatch):
  """install(package=version, ...): what is there besides JAX 0.12.0.1; `_` for `-`."""

  def put(**versions):
    installed = {"jax": "0.12.0.1", **{name.replace("_", "-"): version for name, version in versions.items()}}
    monkeypatch.setattr("mmjax.plan.compilers.package_version", installed.get)
    monkeypatch.setattr(importlib.metadata, "requires", REQUIRES.get)

  return put


@pytest.mark.parametrize("version", ["0.0.50", "0.0.50.1", "0.0.50.dev20261123+nightly"])
def test_the_libtpu_that_jax_asks_for_is_taken(install, version):
  install(libtpu=version)
  require_compiler("tpu")


@pytest.mark.parametrize("version", ["0.0.42.1", "0.0.51"])
def test_another_libtpu_is_named_with_the_command_that_mends_it(install, version):
  install(libtpu=version)
  with pytest.raises(PlanError) as error:
    require_compiler("tpu")
  assert str(error.value) == (
    f"jax 0.12.0.1 needs libtpu==0.0.50.*, but {version} is installed: pip install 'jax[tpu]==0.12.0.1'"
  )


@pytest.mark.parametrize("cuda", [12, 13])
def test_either_cuda_plugin_plans_for_gpus_if_it_is_of_jax_s_version(install, cuda):
  install(**{f"jax_cuda{cuda}_plugin": "0.12.0.1", f"jax_cuda{cuda}_pjrt": "0.12.0.1"})
  require_compiler("cuda")
  install(**{f"jax_cuda{cuda}_plugin": "0.10.2", f"jax_cuda{cuda}_pjrt": "0.10.2"})
  with pytest.raises(PlanError, match=rf"0.10.2 is installed: pip install 'jax\[cuda{cuda}-local\]==0.12.0.1'"):
    require_compiler("cuda")


@pytest.mark.parametrize(("pjrt", "said"), [("0.10.2", "0.10.2 is"), (None, "it is not")])
def test_the_plugin_s_other_half_has_to_go_with_it(install, pjrt, said):
  install(jax_cuda12_plugin="0.12.0.1", jax_cuda12_pjrt=pjrt)
  with pytest.raises(PlanError, match=f"jax-cuda12-plugin 0.12.0.1 needs jax-cuda12-pjrt==0.12.0.1, but {said} inst"):
    require_compiler("cuda")


def test_virtual_cpu_devices_need_no_compiler_of_their_own(install):
  install()
  require_compiler("cpu")

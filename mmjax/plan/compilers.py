"""Check that the compiler packages for TPUs and GPUs are installed, in the versions that the installed JAX needs.

The metadata of JAX names the versions of libtpu and of the CUDA plugin for each release. pip applies it only if these
packages are installed as extras of JAX. A compiler of another version fails with errors that do not mention versions.
"""

import importlib.metadata
from collections.abc import Iterator

from mmjax.errors import UserError

# For each platform: the extras of JAX that install a compiler for it, and the compiler's packages.
_COMPILERS: dict[str, dict[str, tuple[str, ...]]] = {
  "tpu": {"tpu": ("libtpu",)},
  "cuda": {
    "cuda12-local": ("jax-cuda12-plugin", "jax-cuda12-pjrt"),
    "cuda13-local": ("jax-cuda13-plugin", "jax-cuda13-pjrt"),
  },
  "cpu": {},
}
# All compiler packages. Their versions are reported, and are part of the cache's key.
COMPILER_PACKAGES = tuple(name for extras in _COMPILERS.values() for names in extras.values() for name in names)


WORKER = "plan-worker"
"""The command by which the planning process starts an experiment script; it is not for people."""


class PlanError(UserError):
  """The step could not be compiled. The message includes the compiler's error, if there was one."""


def require_compiler(platform: str) -> None:
  """Raise PlanError unless a compiler for `platform` that fits JAX is installed. The message gives a pip command."""
  extras = _COMPILERS[platform]
  installed = [extra for extra, packages in extras.items() if any(map(package_version, packages))]
  if extras and not installed:
    kind = {"tpu": "TPU", "cuda": "GPU"}[platform]
    command = _command(next(iter(extras)))
    raise PlanError(
      f"planning for {kind}s needs their compiler, which is not installed (no {kind} is needed): {command}"
    )
  for extra in installed:
    for mismatch in _mismatches(extra, extras[extra]):
      raise PlanError(f"{mismatch}: {_command(extra)}")


def package_version(package: str) -> str | None:
  """Installed version of a package, or None."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _command(extra: str) -> str:
  """Command that installs the extra for the installed version of JAX, without changing JAX."""
  return f"pip install 'jax[{extra}]=={package_version('jax')}'"


def _mismatches(extra: str, packages: tuple[str, ...]) -> Iterator[str]:
  """Yield an error for each of the packages whose version is not the one that JAX or another of them requires."""
  from packaging.requirements import Requirement  # here, so that --help does not wait for it

  for owner in filter(package_version, ("jax", *packages)):
    for requirement in map(Requirement, importlib.metadata.requires(owner) or ()):
      applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
      if requirement.name not in packages or not applies:
        continue
      version = package_version(requirement.name)
      if version is None or not requirement.specifier.contains(version, prereleases=True):
        wanted = f"{owner} {package_version(owner)} needs {requirement.name}{requirement.specifier}"
        yield f"{wanted}, but {f'{version} is' if version else 'it is not'} installed"

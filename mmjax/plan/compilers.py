"""The packages that compile for TPUs and GPUs: installed, and of the versions that the installed JAX goes with.

JAX's metadata names the libtpu and the CUDA plugin of each release. pip heeds it only where they are asked for as
extras of JAX, and a compiler of another version fails in words that do not say so.
"""

import importlib.metadata
from collections.abc import Iterator

from packaging.requirements import Requirement

from mmjax.errors import UserError

# For each platform: the extras of JAX that bring a compiler for it, and the packages that are the compiler.
_COMPILERS: dict[str, dict[str, tuple[str, ...]]] = {
  "tpu": {"tpu": ("libtpu",)},
  "cuda": {
    "cuda12-local": ("jax-cuda12-plugin", "jax-cuda12-pjrt"),
    "cuda13-local": ("jax-cuda13-plugin", "jax-cuda13-pjrt"),
  },
  "cpu": {},
}
# All of them: versions to report, and to tell compilations apart by.
COMPILER_PACKAGES = tuple(name for extras in _COMPILERS.values() for names in extras.values() for name in names)


WORKER = "plan-worker"
"""The command by which the planning process starts an experiment script; it is not for people."""


class PlanError(UserError):
  """A step that could not be compiled; the message holds the compiler's words."""


def require_compiler(platform: str) -> None:
  """Raises PlanError, with the pip command that helps, unless a compiler that goes with JAX is installed."""
  extras = _COMPILERS[platform]
  installed = [extra for extra, packages in extras.items() if any(map(package_version, packages))]
  if extras and not installed:
    kind = {"tpu": "TPU", "cuda": "GPU"}[platform]
    command = _command(next(iter(extras)))
    raise PlanError(
      f"planning for {kind}s takes their compiler, which is not installed (no {kind} is needed): {command}"
    )
  for extra in installed:
    for mismatch in _mismatches(extra, extras[extra]):
      raise PlanError(f"{mismatch}: {_command(extra)}")


def package_version(package: str) -> str | None:
  """The installed version, or None."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _command(extra: str) -> str:
  """Brings the extra that goes with the installed JAX, and leaves JAX as it is."""
  return f"pip install 'jax[{extra}]=={package_version('jax')}'"


def _mismatches(extra: str, packages: tuple[str, ...]) -> Iterator[str]:
  """A sentence for each of the packages that is not as JAX, or another of them, requires it."""
  for owner in filter(package_version, ("jax", *packages)):
    for requirement in map(Requirement, importlib.metadata.requires(owner) or ()):
      applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
      if requirement.name not in packages or not applies:
        continue
      version = package_version(requirement.name)
      if version is None or not requirement.specifier.contains(version, prereleases=True):
        wanted = f"{owner} {package_version(owner)} needs {requirement.name}{requirement.specifier}"
        yield f"{wanted}, but {f'{version} is' if version else 'it is not'} installed"

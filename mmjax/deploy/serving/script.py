"""Classes of an experiment script that a run needs to be loaded."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

from mmjax.errors import UserError
from mmjax.kinds import Kind, check, is_base


def script_kinds(path: Path | None) -> tuple[type[Kind], ...]:
  """Find the classes for open fields that a script defines or imports, and that do not come with mmjax.

  The script is imported: what stands under `if __name__ == "__main__":` is not run.

  Args:
    path: the file of the script. None: there is none.
  Returns: the classes, as `load_run` takes them in `kinds`.
  Raises: UserError: the file is no script, or its import fails.
  """
  if path is None:
    return ()
  found = [one for value in vars(_imported(path)).values() for one in (value if isinstance(value, tuple) else (value,))]
  own = [one for one in found if isinstance(one, type) and issubclass(one, Kind) and dataclasses.is_dataclass(one)]
  kinds = [one for one in own if not (is_base(one) or one.__module__.startswith("mmjax."))]
  if not kinds:
    raise UserError(f"--script {path} defines no classes for open fields: leave the option out")
  return check(kinds)


def _imported(path: Path) -> Any:
  name = f"mmjax_script_{path.stem}"
  spec = importlib.util.spec_from_file_location(name, path) if path.suffix == ".py" and path.is_file() else None
  if spec is None or spec.loader is None:
    raise UserError(f"--script {path} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module  # dataclasses look their module up
  sys.path.insert(0, str(path.resolve().parent))  # as Python does for a script
  try:
    spec.loader.exec_module(module)
  except (Exception, SystemExit) as error:
    raise UserError(f"--script {path} cannot be imported: {type(error).__name__}: {error}") from error
  finally:
    sys.path.pop(0)
  return module

"""Files of a workdir that a report shows."""

import json
from pathlib import Path
from typing import Any

from mmjax.errors import UserError


def read_json(path: Path) -> Any:
  """A JSON file of a workdir; None where there is none. Raises UserError where it is not JSON."""
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise UserError(f"{path} is not JSON ({error}): remove it, or evaluate the run again") from error

"""Classes of a script, which a run with kinds of its own needs."""

from pathlib import Path

import pytest

from mmjax.deploy.serving.script import script_kinds
from mmjax.errors import UserError

ROOT = Path(__file__).parents[2]


def test_the_classes_that_a_script_defines_are_found():
  names = {kind.__name__ for kind in script_kinds(ROOT / "experiments" / "own_modality.py")}
  assert names == {"Patients", "Numbers", "TableConfig", "RegressorConfig", "SquaredError", "Explained"}
  assert script_kinds(None) == ()


def test_a_script_is_not_run_and_finds_its_neighbours(tmp_path, capsys):
  (tmp_path / "beside_it.py").write_text(
    "import dataclasses\nfrom mmjax.objectives import Contrastive\n\n"
    "@dataclasses.dataclass(frozen=True)\nclass Mine(Contrastive):\n  pass\n"
  )
  script = tmp_path / "mine.py"
  script.write_text("from beside_it import Mine\nif __name__ == '__main__':\n  print('run')\n")
  assert [kind.__name__ for kind in script_kinds(script)] == ["Mine"] and capsys.readouterr().out == ""


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("import nonsense_of_mine", "cannot be imported: ModuleNotFoundError"),
    ("exit(3)", "SystemExit"),
    ("", "no classes"),
  ],
)
def test_bad_scripts_are_named(tmp_path, text, said):
  script = tmp_path / "script.py"
  script.write_text(text)
  with pytest.raises(UserError, match=f"script.py .*{said}"):
    script_kinds(script)
  for wrong in (tmp_path, tmp_path / "none.py", tmp_path / "script.txt"):
    with pytest.raises(UserError, match="is not a Python file"):
      script_kinds(wrong)

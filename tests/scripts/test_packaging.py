"""The wheel and the source distribution, built from a copy of what git tracks."""

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mmjax

ROOT = Path(__file__).parents[2]
BUILD = "from setuptools import build_meta; build_meta.build_sdist('out'); build_meta.build_wheel('out')"


def tracked() -> set[str]:
  """Files of the checkout that belong to the project; in an unpacked source distribution, every file."""
  if (ROOT / ".git").exists():
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).exists()}
  files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
  return {path.as_posix() for path in files if not {"__pycache__", ".venv"} & {*path.parts}}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
  """(source distribution, wheel)."""
  copy = tmp_path_factory.mktemp("copy")
  for name in tracked():
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / name, copy / name)
  done = subprocess.run([sys.executable, "-c", BUILD], cwd=copy, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  (sdist,), (wheel,) = (copy / "out").glob("*.tar.gz"), (copy / "out").glob("*.whl")
  return sdist, wheel


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built):
  with zipfile.ZipFile(built[1]) as wheel:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
  assert held == {name for name in tracked() if name.startswith("mmjax/")}
  assert {"mmjax/py.typed", "mmjax/train/loop.py", "mmjax/plan/target_configs/h100.txtpb"} <= held


def test_the_wheel_says_what_it_is(built):
  with zipfile.ZipFile(built[1]) as wheel:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    said = email.message_from_bytes(wheel.read(name))
  assert said["Version"] == mmjax.__version__ and said["License-Expression"] == "Apache-2.0"
  assert "Programming Language :: Python :: 3.14" in said.get_all("Classifier")


def test_the_source_distribution_holds_what_its_tests_read(built):
  with tarfile.open(built[0]) as archive:
    held = {name.partition("/")[2] for name in archive.getnames()}
  folders = ("mmjax/", "tests/", "scripts/", "experiments/")
  missing = {
    name for name in tracked() if name.startswith(folders) or name.endswith((".md", ".toml", "constraints.txt"))
  } - held
  assert not missing

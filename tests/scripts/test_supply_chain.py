"""What the set-up scripts install: pinned, hashed, complete; and what can be said of the audit without a network."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "scripts" / "locks"


@pytest.fixture(scope="module")
def lock():
  spec = importlib.util.spec_from_file_location("lock", ROOT / "scripts" / "lock.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_locks_hold_what_setup_py_asks_for(lock, capsys):
  assert lock.check() == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["emoji", "emoji-dev", "build", "tools"])
def test_every_line_of_a_lock_is_pinned_and_hashed(name):
  text = (LOCKS / f"{name}.txt").read_text().replace("\\\n", " ")
  lines = [line for line in text.splitlines() if line and not line.startswith("#")]
  assert len(lines) >= 3
  for line in lines:
    assert re.fullmatch(r"[\w.-]+==\S+ ( *; [^;]*?)?( +--hash=sha256:[0-9a-f]{64})+", line), line[:80]


SETUP = 'CORE = ["numpy>=2", "rich"]\nEXTRAS = {"emoji": ["emoji==2.16.0"], "dev": ["PyTest"]}\n'


@pytest.mark.parametrize(
  ("lines", "fault"),
  [
    ("rich==15.0.0 \\\nemoji==2.16.0", "has no numpy"),
    ("numpy==1.26.0 \\\nrich==15.0.0\nemoji==2.16.0", "has numpy 1.26.0, setup.py asks for >=2"),
    ("numpy==2.4.6 \\\nrich==14.0.0\nemoji==2.16.0", "has rich 14.0.0, constraints.txt 15.0.0"),
    ("numpy==2.4.6 ; python_version > '3'\nRich==15.0.0\nemoji==2.16.0\nextra==1", None),
    ("numpy==2.4.6 ; python_version < '3.14'\nrich==15.0.0\nemoji==2.16.0", "has no numpy"),
  ],
)
def test_a_stale_lock_is_named(lock, tmp_path, lines, fault):
  for name, text in {"setup.py": SETUP, "lock.txt": lines, "constraints.txt": "rich==15.0.0\nidle==1\n"}.items():
    (tmp_path / name).write_text(text)
  found = lock.stale(["emoji"], tmp_path / "lock.txt", tmp_path / "setup.py", tmp_path / "constraints.txt")
  assert found == [] if fault is None else len(found) == 1 and fault in found[0]


def test_a_lock_for_every_set_up_script(lock):
  """Each script names extras that there is a lock of, and pip is told to refuse what has no hash."""
  for script in ("pretrain.sh", "test.sh", "references.sh"):
    (extras,) = re.findall(r'environment\.sh" (\S+)', (ROOT / "scripts" / script).read_text())
    assert (LOCKS / f"{extras.replace(',', '-')}.txt").exists() and tuple(extras.split(",")) in lock.EXTRAS.values()
  assert (ROOT / "scripts" / "environment.sh").read_text().count("--require-hashes --no-deps") == 2


@pytest.mark.parametrize(
  ("said", "status", "expected"),
  [
    ("No known vulnerabilities found", 0, 0),
    ("Found 2 known vulnerabilities in 1 package", 1, 1),
    ("ConnectionError: the network is unreachable", 1, 3),
    ("jax Dependency not found on PyPI and could not be audited: jax (0.10.2)", 0, 3),
  ],
)
def test_the_audit_says_when_it_could_not_ask(tmp_path, said, status, expected):
  audit = tmp_path / "pip-audit"
  audit.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit {status}\n")
  audit.chmod(0o755)
  scripts = tmp_path / "scripts"
  scripts.mkdir()  # a copy, so that .venv/tools of this checkout is not what is found
  for name in ("audit.sh", "lock.py"):
    (scripts / name).write_bytes((ROOT / "scripts" / name).read_bytes())
  environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
  done = subprocess.run(["bash", str(scripts / "audit.sh")], env=environment, capture_output=True, text=True)
  assert done.returncode == expected, done.stdout + done.stderr
  assert done.stdout.count(said) == 3 and ("this says nothing" in done.stderr) == (expected == 3)

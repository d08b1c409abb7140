"""The short form of scripts/benchmarks/kill_campaign.py: kill -9 in a step and in a save; the same bits at the end."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_two_kills_leave_no_trace(tmp_path):
  script = ROOT / "scripts" / "benchmarks" / "kill_campaign.py"
  command = [sys.executable, str(script), "--kills", "2", "--out", str(tmp_path / "campaign")]
  ended = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=ROOT)
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert "2 of 2 identical" in ended.stdout and "DIFFERS" not in ended.stdout

"""schemathesis on the OpenAPI description of the service: are statuses, types and answers as described?

  python -m venv --system-site-packages /tmp/schema && /tmp/schema/bin/pip install schemathesis
  /tmp/schema/bin/python scripts/benchmarks/serve_schema.py WORKDIR --images photos

The status is that of schemathesis: 0 if every check holds. positive_data_acceptance is left out: a string that is no
image in base64 is as described, and refused. 500 is not described, so a fault of the service fails.
"""

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from serve_client import served

KEY = "of this test"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("workdir", type=Path, help="workdir of a run, or folder of an export")
  parser.add_argument("--images", type=Path, help="folder to search")
  parser.add_argument("--examples", type=int, default=200, help="of each route")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  program = shutil.which("st", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
  if program is None:
    sys.exit("schemathesis is not installed here: see --help")
  os.environ["MMJAX_API_KEY"] = KEY
  with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
    port = free.getsockname()[1]
  options = ["--images", str(args.images)] if args.images else []
  with served(args.workdir, port, Path(os.devnull), options):
    command = [
      program, "run", f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {KEY}",
      "--max-examples", str(args.examples), "--seed", str(args.seed), "--phases", "coverage,fuzzing", "--checks", "all",
      "--exclude-checks", "positive_data_acceptance", "--continue-on-failure",
    ]  # fmt: skip
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
  main()

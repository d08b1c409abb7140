"""The launchers, with stand-ins for what they start: no JAX here (tests/parallel/test_group.py has the real thing)."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mmjax.parallel.watch import STOPPED

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
LOCAL = [sys.executable, str(LAUNCH / "local.py")]


def script(folder: Path, text: str) -> str:
  """A Python script that knows which process it is (`me`) and how often this process was started (`attempt`)."""
  path = folder / "script.py"
  head = f"""
import os, pathlib, signal, sys, time
me = int(os.environ["JAX_PROCESS_ID"])
count = pathlib.Path({str(folder)!r}) / f"count-{{me}}"
attempt = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (attempt + 1))
"""
  path.write_text(head + text)
  return str(path)


def local(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run([*LOCAL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180)


def test_every_process_knows_its_place(tmp_path):
  said = "print(os.environ['JAX_NUM_PROCESSES'], os.environ.get('JAX_NUM_CPU_DEVICES'), *sys.argv[1:])"
  done = local("-n", "3", "--devices", "2", script(tmp_path, said), "train", "--run.steps", "4")
  assert done.returncode == 0
  assert sorted(done.stdout.splitlines()) == [f"[{i}] 3 2 train --run.steps 4" for i in range(3)]


def test_a_group_that_fails_is_started_again(tmp_path):
  fails = "if attempt < 2 and me == 1: sys.exit(75)\nif attempt < 2: time.sleep(60)"
  began = time.monotonic()
  done = local("-n", "2", "--max-restarts", "5", script(tmp_path, fails))
  assert done.returncode == 0 and time.monotonic() - began < 40  # process 0 was not waited for
  assert done.stdout.count("process 1 ended with status 75; stopping the others") == 2
  assert "starting the group again (2 of at most 5 times)" in done.stdout


def test_the_end_of_the_restarts_is_the_failure(tmp_path):
  done = local(
    "-n", "2", "--max-restarts", "1", script(tmp_path, "if me == 0: os.kill(os.getpid(), 9)\ntime.sleep(60)")
  )
  assert done.returncode == 128 + 9 and done.stdout.count("process 0 was killed by SIGKILL") == 2


def test_a_mistake_is_not_tried_again(tmp_path):
  done = local("-n", "2", "--max-restarts", "5", script(tmp_path, "sys.exit(2)"))
  assert done.returncode == 2 and "again" not in done.stdout


def test_processes_that_do_not_stop_are_killed_with_their_children(tmp_path):
  stubborn = f"""
if me == 0:
  time.sleep(1); sys.exit(3)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
import subprocess
child = subprocess.Popen(["sleep", "600"])
pathlib.Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
time.sleep(600)
"""
  done = local("-n", "2", "--grace", "0.5", script(tmp_path, stubborn))
  assert done.returncode == 3 and "still running after 0.5 s: killed" in done.stdout
  child = Path("/proc") / (tmp_path / "child").read_text() / "stat"
  deadline = time.monotonic() + 10
  while child.exists() and ") Z " not in child.read_text() and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not child.exists() or ") Z " in child.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_nothing_is_started_again(tmp_path, number):
  waits = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\nprint('ready')\ntime.sleep(60)"
  command = [*LOCAL, "-n", "2", "--max-restarts", "5", script(tmp_path, waits)]
  group = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
  assert [group.stdout.readline()[3:] for _ in range(2)] == [" ready\n"] * 2
  group.send_signal(number)
  said = group.communicate(timeout=30)[0]
  assert group.returncode == 128 + number and "again" not in said


def stand_in(folder: Path, name: str, text: str) -> None:
  (folder / name).write_text(f"#!/usr/bin/env bash\necho {name} \"$@\" >>'{folder}/calls'\n{text}\n")
  (folder / name).chmod(0o755)


def shell(folder: Path, launcher: str, *arguments: str, **environment: str) -> tuple[subprocess.Popen, Path]:
  variables = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | environment
  command = ["bash", str(LAUNCH / launcher), *arguments]
  output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
  return subprocess.Popen(command, env=variables, cwd=folder, **output), folder / "calls"


@pytest.mark.parametrize(
  ("status", "restarts", "requeued"),
  [(0, "0", False), (2, "0", False), (STOPPED, "0", True), (137, "3", True), (137, "100", False)],
)
def test_slurm_queues_again_what_can_go_on(tmp_path, status, restarts, requeued):
  stand_in(tmp_path, "srun", f"exit {status}")
  stand_in(tmp_path, "scontrol", "")
  job, calls = shell(tmp_path, "slurm.sbatch", "a.py", "train", SLURM_JOB_ID="7", SLURM_RESTART_COUNT=restarts)
  job.communicate(timeout=30)
  assert job.returncode == status
  python = f"{tmp_path}/.venv/bin/python -u a.py train"
  assert f"srun --kill-on-bad-exit=1 --label {python}\n" in calls.read_text()
  assert ("scontrol requeue 7" in calls.read_text()) == requeued


def test_slurms_warning_reaches_the_tasks(tmp_path):
  stand_in(tmp_path, "srun", "trap 'sleep 0.5; exit 143' TERM; echo ready; for i in {1..300}; do sleep 0.1; done")
  stand_in(tmp_path, "scontrol", "")
  job, calls = shell(tmp_path, "slurm.sbatch", "a.py", SLURM_JOB_ID="7")
  assert job.stdout.readline() == "ready\n"
  job.send_signal(signal.SIGUSR1)
  said = job.communicate(timeout=30)[0]
  assert job.returncode == 143 and "saved and stopped with status 143" in said
  assert "scontrol requeue 7" in calls.read_text()


def test_slurms_warning_in_the_first_moment_of_a_step_reaches_it(tmp_path):
  # Bash runs this before each command of the script: the signal comes with the first one after the step has begun.
  first = """trap '[ -z "${!:-}" ] || [ -n "$sent" ] || { sent=1; kill -USR1 $$; }' DEBUG; sent="""
  step = "srun() { trap 'exit 143' TERM; for i in {1..50}; do sleep 0.1; done; }"
  (tmp_path / "first.sh").write_text(f"{step}\nscontrol() {{ :; }}\n{first}\n")
  job, _ = shell(tmp_path, "slurm.sbatch", "a.py", SLURM_JOB_ID="7", BASH_ENV=str(tmp_path / "first.sh"))
  assert "saved and stopped with status 143" in job.communicate(timeout=30)[0] and job.returncode == 143


def test_a_tpu_slice_is_started_again_until_it_ends(tmp_path):
  stand_in(tmp_path, "gcloud", f"[[ $* != *exec* ]] || [ $(grep -c exec {tmp_path}/calls) -ge 3 ] || exit 75")
  run = ("run", "a.py", "train", "--run.workdir", "/mnt/a b")
  job, calls = shell(tmp_path, "tpu_vm.sh", *run, TPU="t", ZONE="z", PAUSE="0", MAX_RESTARTS="5")
  said = job.communicate(timeout=30)[0]
  assert job.returncode == 0 and "status 75: starting the group again (2 of at most 5 times)" in said
  assert "compute tpus tpu-vm ssh t --zone z --worker=all --command" in calls.read_text()
  assert calls.read_text().count('exec "$PWD/.venv/bin/python" -u a.py train --run.workdir /mnt/a\\ b') == 3


@pytest.mark.parametrize("endpoints", ["10.0.0.2,10.0.0.3", "unknown:unknown:10.0.0.2,unknown:unknown:10.0.0.3"])
def test_a_tpu_worker_finds_its_place_in_the_metadata(tmp_path, endpoints):
  (tmp_path / "mmjax" / ".venv" / "bin").mkdir(parents=True)
  stand_in(tmp_path, "gcloud", 'cd "$(dirname "$0")" && bash -c "${@: -1}"')
  stand_in(tmp_path, "curl", f"[[ $* == *agent-worker-number ]] && echo 1 || echo {endpoints}")
  stand_in(tmp_path / "mmjax" / ".venv" / "bin", "python", "env | grep ^JAX_ | sort")
  job, _ = shell(tmp_path, "tpu_vm.sh", "run", "a.py", TPU="t", ZONE="z", MAX_RESTARTS="0")
  found = [line for line in job.communicate(timeout=30)[0].splitlines() if "PROCESS" in line or "COORDINATOR" in line]
  assert found == ["JAX_COORDINATOR_ADDRESS=10.0.0.2:8476", "JAX_NUM_PROCESSES=2", "JAX_PROCESS_ID=1"]


def test_the_jobset_says_what_its_comments_say():
  (jobset,) = yaml.safe_load_all((LAUNCH / "gke_jobset.yaml").read_text())
  assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
  (replicated,) = jobset["spec"]["replicatedJobs"]
  job = replicated["template"]["spec"]
  assert job["parallelism"] == job["completions"] and job["backoffLimit"] == 0
  (rule,) = job["podFailurePolicy"]["rules"]
  (container,) = job["template"]["spec"]["containers"]
  assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2]}
  (policy,) = jobset["spec"]["failurePolicy"]["rules"]
  assert policy == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
  chips, hosts = container["resources"]["limits"]["google.com/tpu"], job["parallelism"]
  topology = job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  assert chips * hosts == int(topology.split("x")[0]) * int(topology.split("x")[1])
  assert (LAUNCH.parents[1] / container["command"][2]).exists()


@pytest.mark.parametrize("name", ["slurm.sbatch", "tpu_vm.sh"])
def test_shell_scripts_parse(name):
  subprocess.run(["bash", "-n", LAUNCH / name], check=True)
  if shutil.which("shellcheck"):
    subprocess.run(["shellcheck", "--shell=bash", LAUNCH / name], check=True)

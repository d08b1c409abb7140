import pytest

from mmjax.parallel.distributed import process_count, start_distributed


@pytest.mark.parametrize(
  ("environment", "count"),
  [
    ({}, 1),
    ({"JAX_NUM_PROCESSES": "4"}, 4),
    ({"SLURM_NTASKS": "16", "SLURM_STEP_ID": "0"}, 16),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, 2),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, 1),
    ({"TPU_WORKER_HOSTNAMES": "a,b,c"}, 3),
  ],
)
def test_the_launcher_says_how_many_processes_there_are(environment, count):
  assert process_count(environment) == count


def test_nothing_is_started_for_one_process(monkeypatch):
  monkeypatch.setattr("jax.distributed.initialize", lambda **_: pytest.fail("started"))
  start_distributed({})
  start_distributed({"SLURM_NTASKS": "8"})  # an interactive allocation: srun has started nothing


def test_explicit_variables_are_handed_on(monkeypatch):
  seen = {}
  monkeypatch.setattr("jax.distributed.initialize", lambda **arguments: seen.update(arguments))
  monkeypatch.setattr("jax.config.update", lambda *_: None)
  environment = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1", "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1234"}
  start_distributed(environment)
  assert seen.pop("heartbeat_timeout_seconds") == 120
  assert seen == {"coordinator_address": "127.0.0.1:1234", "num_processes": 2, "process_id": 1}


def test_half_a_description_is_refused():
  with pytest.raises(ValueError, match="JAX_COORDINATOR_ADDRESS is not"):
    start_distributed({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"})
  with pytest.raises(ValueError, match="JAX_NUM_PROCESSES is 'two'"):
    start_distributed({"JAX_NUM_PROCESSES": "two"})

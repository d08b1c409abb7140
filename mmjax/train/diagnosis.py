"""What is said of a step that went wrong: the line of events.jsonl, the console's, and the error that ends a run."""

import math
from collections.abc import Mapping
from typing import Any

from mmjax.errors import UserError
from mmjax.train.numerics import Action, LossSpikeError, NotFiniteError
from mmjax.train.state import Params
from mmjax.train.step import first_bad_parameter

_DONE = {"log": "goes on", "skip": "skips this update", "rollback": "goes back to the last checkpoint", "stop": "stops"}


def event(finite: bool, action: Action, *, batch: int, step: int, values: Mapping[str, Any]) -> dict[str, Any]:
  """A line of events.jsonl. JSON has no number that is not finite: such a one is written as text.

  Args:
    finite: whether the step's numbers were.
    action: what is done about it.
    batch: how many batches the run has read, this one included.
    step: the number that the step has, or would have had.
    values: the step's loss, usual_loss (the median of those before) and grad_norm.
  """
  numbers = {name: float(values[name]) for name in ("loss", "usual_loss", "grad_norm")}
  told = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
  return {"batch": batch, "step": step, "event": "spike" if finite else "not finite", "action": action, **told}


def sentence(event: Mapping[str, Any]) -> str:
  """The event for people."""
  return (
    f"step {event['step']} (batch {event['batch']}), {event['event']}: loss {event['loss']}, usually "
    f"{event['usual_loss']}, gradient norm {event['grad_norm']}; {_DONE[event['action']]}"
  )


def stopped(event: Mapping[str, Any], params: Params, bad: Any, *, kept: str, exhausted: str) -> UserError:
  """The error that ends a run.

  Args:
    event: what happened.
    params: the parameters or their shapes, for their names.
    bad: marks those whose gradient is not finite.
    kept: what the last good checkpoint is.
    exhausted: why nothing milder was done; empty where nothing milder was wanted.
  """
  end = (
    f"Nothing was saved over the last good checkpoint ({kept}){exhausted}. A lower --optimizer.learning-rate, a longer "
    "--optimizer.warmup-steps or a smaller --optimizer.clip-norm usually helps; "
  )
  if event["event"] == "spike":
    return LossSpikeError(
      f"the loss of step {event['step']} jumped to {event['loss']}, usually {event['usual_loss']}. {end}"
      "--numerics.on-spike log, skip or rollback goes on."
    )
  name = first_bad_parameter(params, bad)
  where = f"the first parameter whose gradient is not finite is {name!r}" if name else "every gradient is finite"
  return NotFiniteError(
    f"step {event['step']} is not finite: loss {event['loss']}, gradient norm {event['grad_norm']}; {where}. {end}"
    "--numerics.on-not-finite skip or rollback goes on without this batch."
  )

"""Messages about a step that went wrong: the line of events.jsonl, the console line, and the error of a run."""

import math
from collections.abc import Mapping
from typing import Any

from mmjax.errors import UserError
from mmjax.train.numerics import Action, LossSpikeError, NotFiniteError
from mmjax.train.state import Params
from mmjax.train.step import first_bad_parameter

_DONE = {"log": "continues", "skip": "skips this update", "rollback": "returns to the last checkpoint", "stop": "stops"}


def event(finite: bool, action: Action, *, batch: int, step: int, values: Mapping[str, Any]) -> dict[str, Any]:
  """Make a line of events.jsonl. Numbers that are not finite are written as text, because JSON has none.

  Args:
    finite: True if the loss and the gradient norm of the step are finite.
    action: reaction to the event.
    batch: number of batches that the run has read, with this one.
    step: number of the step.
    values: loss, usual_loss (median of the losses before) and grad_norm of the step.
  """
  numbers = {name: float(values[name]) for name in ("loss", "usual_loss", "grad_norm")}
  told = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
  return {"batch": batch, "step": step, "event": "spike" if finite else "not finite", "action": action, **told}


def sentence(event: Mapping[str, Any]) -> str:
  """Format an event as a sentence for the console."""
  return (
    f"step {event['step']} (batch {event['batch']}), {event['event']}: loss {event['loss']}, usually "
    f"{event['usual_loss']}, gradient norm {event['grad_norm']}; {_DONE[event['action']]}"
  )


def stopped(event: Mapping[str, Any], params: Params, bad: Any, *, kept: str, exhausted: str) -> UserError:
  """Make the error that ends a run.

  Args:
    event: the event.
    params: the parameters or their shapes. Only the names are used.
    bad: True for each parameter whose gradient is not finite.
    kept: description of the last good checkpoint.
    exhausted: reason why the run stops although the reaction should be milder (`Policy.exhausted`), or empty.
  """
  end = (
    f"Nothing was saved over the last good checkpoint ({kept}){exhausted}. A lower --optimizer.learning-rate, a longer "
    "--optimizer.warmup-steps or a smaller --optimizer.clip-norm usually helps; "
  )
  if event["event"] == "spike":
    return LossSpikeError(
      f"the loss of step {event['step']} jumped to {event['loss']}, usually {event['usual_loss']}. {end}"
      "--numerics.on-spike log, skip or rollback continues."
    )
  name = first_bad_parameter(params, bad)
  where = f"the first parameter whose gradient is not finite is {name!r}" if name else "every gradient is finite"
  return NotFiniteError(
    f"step {event['step']} is not finite: loss {event['loss']}, gradient norm {event['grad_norm']}; {where}. {end}"
    "--numerics.on-not-finite skip or rollback continues without this batch."
  )

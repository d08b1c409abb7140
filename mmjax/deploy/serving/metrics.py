"""Metrics of a service in Prometheus' format."""

from collections.abc import Callable
from typing import Any

import jax
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Metrics:
  """The metrics of one service, in a registry of its own."""

  def __init__(self) -> None:
    self.registry = CollectorRegistry()
    own: dict[str, Any] = {"registry": self.registry}
    self.requests = Counter("mmjax_requests_total", "Requests answered.", ["route", "status"], **own)
    self.seconds = Histogram("mmjax_request_seconds", "Time of requests.", ["route"], buckets=_SECONDS, **own)
    self.batches = Histogram("mmjax_batch_items", "Items of a batch.", ["ability"], buckets=_SIZES, **own)
    self.padding = Counter("mmjax_padded_items_total", "Rows that fill up batches.", ["ability"], **own)
    self.compute = Histogram("mmjax_batch_seconds", "Time of a batch.", ["ability"], buckets=_SECONDS, **own)
    self.compiled = Counter("mmjax_compilations_total", "Programs compiled since the service is ready.", **own)
    self._waiting = Gauge("mmjax_queue_items", "Items that wait for the model.", **own)
    self._open = Gauge("mmjax_requests_open", "Requests under way.", **own)
    ProcessCollector(**own)  # memory and CPU time of the process
    self._counting = False
    jax.monitoring.register_event_duration_secs_listener(self._compiled)

  def watch(self, waiting: Callable[[], int], under_way: Callable[[], int]) -> None:
    """Set the functions that return the numbers of waiting items and of requests under way."""
    self._waiting.set_function(waiting)
    self._open.set_function(under_way)

  def ready(self) -> None:
    """Begin to count compilations: everything has been compiled."""
    self._counting = True

  def batch(self, ability: str, items: int, size: int, seconds: float) -> None:
    """Count a batch.

    Args:
      ability: name of the ability.
      items: number of items.
      size: size of the batch, with padding.
      seconds: time that it took.
    """
    self.batches.labels(ability).observe(items)
    self.padding.labels(ability).inc(size - items)
    self.compute.labels(ability).observe(seconds)

  def text(self) -> bytes:
    """All metrics, in Prometheus' text format."""
    return generate_latest(self.registry)

  def _compiled(self, event: str, duration_secs: float, **_: Any) -> None:
    if self._counting and event == _COMPILED:
      self.compiled.inc()

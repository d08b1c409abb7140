"""The command `serve`."""

from __future__ import annotations

import gc
import importlib.util
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from mmjax.errors import UserError

if TYPE_CHECKING:
  from mmjax.deploy.serving.index import Index
  from mmjax.deploy.serving.served import Served

KEY = "MMJAX_API_KEY"
"""Environment variable with the API key."""
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def serve(options: Any) -> int:
  """Run the command `serve`, until SIGTERM or Ctrl-C.

  Args:
    options: parsed options (mmjax.deploy.serving.options).
  Returns: the exit status, 0.
  Raises: UserError: a package is missing, the address cannot be used, or the run cannot be served.
  """
  missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
  if missing:
    raise UserError(f"serving needs {', '.join(missing)}: pip install 'mmjax[serve]'")
  key = os.environ.get(KEY) or None
  listener = bound(options.host, options.port)
  with listener:
    host, port = listener.getsockname()[:2]
    if key is None and not host.startswith("127.") and host != "::1":
      say(f"[bold yellow]warning:[/] without an API key, anyone who reaches {host} may use the model: set {KEY}")
    return _serve(options, listener, key, f"http://{f'[{host}]' if ':' in host else host}:{port}/")


def bound(host: str, port: int) -> socket.socket:
  """A socket at an address, before anything slow is done. Raises UserError if it cannot be had."""
  try:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
  except (socket.gaierror, UnicodeError) as error:
    raise UserError(f"--host {host} is no address of this machine: {error}") from error
  family, kind, protocol, _, address = found[0]
  listener = socket.socket(family, kind, protocol)
  listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
  try:
    listener.bind(address)
  except OSError as error:
    listener.close()
    raise UserError(f"port {port} of {host} cannot be used ({error.strerror}): choose another with --port") from error
  return listener


def _serve(options: Any, listener: socket.socket, key: str | None, url: str) -> int:
  from mmjax.parallel.starting import set_up

  with set_up():
    return _answer(options, listener, key, url)


def _answer(options: Any, listener: socket.socket, key: str | None, url: str) -> int:
  """Load the model, compile, and answer."""
  import uvicorn

  from mmjax.deploy.serving.app import make_app
  from mmjax.deploy.serving.connections import bounded
  from mmjax.deploy.serving.gate import Limits
  from mmjax.deploy.serving.index import made_index
  from mmjax.deploy.serving.logs import log_json
  from mmjax.deploy.serving.metrics import Metrics
  from mmjax.deploy.serving.service import Service
  from mmjax.deploy.serving.statistics import StatisticsFile

  served, saved = _loaded(options)
  file = None
  if options.statistics is not None:
    file = StatisticsFile(options.statistics, served.fingerprint, options.statistics_every)
  index: Index | None = None
  if options.images is not None:
    place = options.index or saved
    index = made_index(served, options.images, place, options.max_pixels)
    if options.approximate:
      index = _approximate(index, place)
  elif options.approximate:
    raise UserError("--approximate needs --images DIR")
  metrics = Metrics()
  compile_all(served)
  metrics.ready()
  service = Service(
    served, index=index, statistics=file, max_queue=options.max_queue, window=options.window_ms / 1000,
    max_pixels=options.max_pixels, observe=metrics.batch,
  )  # fmt: skip
  limits = Limits(body=round(options.max_body_mb * 1e6), requests=options.max_queue, seconds=options.timeout)
  app = make_app(service, metrics, limits=limits, key=key)
  try:
    listener.listen(2048)
  except OSError as error:
    raise UserError(f"{url} cannot be used ({error.strerror}): choose another --port") from error
  say(f"serving {served.name}, step {served.step}: {', '.join(served.abilities)}")
  say(f"{url} (page to try it), {url}docs; Ctrl-C stops")
  log_json()
  allow_files(limits.connections)
  gc.collect()
  gc.freeze()  # the model's objects stay: collections during requests need not look at them
  # uvicorn stops at these signals after the requests under way, and then sends them again, to whatever was set here.
  for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: None)
  protocol = bounded(limits, lambda status: metrics.requests.labels("none", str(status)).inc())
  config = uvicorn.Config(
    app, http=protocol, log_config=None, access_log=False, server_header=False, timeout_keep_alive=15, ws="none",
    timeout_graceful_shutdown=round(options.timeout) + 15, proxy_headers=False, backlog=2048,
  )  # fmt: skip
  uvicorn.Server(config).run(sockets=[listener])
  return 0


def _loaded(options: Any) -> tuple[Served, Path]:
  """Return the parts of a run or an export that are served, and the default file of the index."""
  folder = options.folder.expanduser()
  from mmjax.deploy.loading import load
  from mmjax.deploy.serving.of_export import is_export, of_export

  if is_export(folder):
    for name in ("step", "script"):
      if getattr(options, name) is not None:
        raise UserError(f"--{name} is an option of runs, and {folder} is an export: leave it out")
    place = folder.resolve()
    return of_export(load(folder), options.max_batch), place.with_name(f"{place.name}.search_index.npz")
  from mmjax.deploy.serving.of_run import of_run
  from mmjax.deploy.serving.script import script_kinds
  from mmjax.loading import load_run

  run = load_run(folder, step=options.step, kinds=script_kinds(options.script))
  return of_run(run, options.max_batch), run.workdir / "search_index.npz"


def _approximate(index: Index, place: Path) -> Index:
  """The index with lists, after a comparison with exact search."""
  from mmjax.deploy.serving.approximate import FOUND, approximate, quality, sampled

  made = approximate(index, place.with_name(f"{place.name}.lists.npz"))
  found = quality(made, sampled(made))
  say(
    f"approximate search: recall@{FOUND} {found.recall:.3f}, {1000 * found.seconds:.2f} ms instead of "
    f"{1000 * found.exact_seconds:.2f} ms, for images of the index"
  )
  return made


def compile_all(served: Served) -> None:
  """Run every function at every size once, so that no request waits for the compiler."""
  from mmjax.deploy.serving.batching import compute

  jobs = [(ability, size) for ability in served.abilities.values() for size in ability.sizes]
  for ability, size in track(jobs, "compiling", transient=True, console=Console(stderr=True)):
    compute(ability, [ability.example], size)


def allow_files(connections: int) -> None:
  """Raise the limit of open files of this process for a number of connections, as far as the system lets it."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  wanted = connections + 512
  if soft != resource.RLIM_INFINITY and soft < wanted:
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def say(text: str) -> None:
  """Print to standard error. Standard output stays empty."""
  Console(file=sys.stderr).print(text, highlight=False, soft_wrap=True)

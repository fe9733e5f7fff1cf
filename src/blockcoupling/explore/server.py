"""The explorer's server: the page, its modules, and payloads read when they are asked for."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import signal
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from getpass import getuser
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from blockcoupling.errors import MeasurementError, UserError, system_error, system_sentence
from blockcoupling.explore.packing import as_json
from blockcoupling.explore.page import library, modules, served
from blockcoupling.explore.payloads import payload

if TYPE_CHECKING:
    from blockcoupling.catalog import Catalog

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
PORT = 8899
_KEPT = 64_000_000
"""Bytes of answers that are kept."""
_UNREACHABLE = {
    *(errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE),
    *(errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH),
}


class Answers:
    """Payloads as JSON; the last ones are kept."""

    def __init__(self, catalogs: Sequence[Catalog], titles: Sequence[str]) -> None:
        self._catalogs, self._titles = catalogs, titles
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def answer(self, key: str) -> tuple[int, bytes]:
        """Return the HTTP status and the content for a key; an error is one sentence."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return 200, self._kept[key]
        try:
            content = as_json(payload(self._catalogs, self._titles, key))
        except (UserError, MeasurementError) as error:
            return 404, _said(str(error))
        except Exception as error:
            found = system_error(error)
            if found is None:
                logger.exception("the payload %s could not be made", key)
                return 500, _said(f"{key} could not be made; the explorer's terminal says why.")
            if found.errno in _UNREACHABLE:
                return 404, _said(
                    "the server of this catalog does not answer any more: try again when it does."
                )
            return 404, _said(system_sentence(found))
        self._kept[key] = content
        while sum(map(len, self._kept.values())) > _KEPT and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return 200, content


def _said(sentence: str) -> bytes:
    # The name of an entry, with which a sentence may begin, stays as it is.
    name = "/" in sentence.split(maxsplit=1)[0]
    return json.dumps({"error": sentence if name else sentence[:1].upper() + sentence[1:]}).encode()


class _Handler(RequestHandler):
    """Answers the names that the server is known by only: no other site's page can read it."""

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")

    def prepare(self) -> None:
        name = str(self.request.host_name)
        if self.application.settings["names"] and name not in self.application.settings["names"]:
            self.send_error(403)


class _File(_Handler):
    def initialize(self, read: Callable[[str], bytes | None], kind: str) -> None:
        self.read, self.kind = read, kind

    def get(self, name: str = "") -> None:
        content = self.read(name)
        if content is None:
            self.send_error(404)
            return
        self.set_header("Content-Type", f"{self.kind}; charset=utf-8")
        self.finish(content)


class _Data(_Handler):
    def initialize(self, answers: Answers, reading: ThreadPoolExecutor) -> None:
        self.answers, self.reading = answers, reading

    async def get(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        status, content = await loop.run_in_executor(self.reading, self.answers.answer, key)
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        await self.finish(content)


def application(
    catalogs: Sequence[Catalog], titles: Sequence[str], title: str, host: str = LOOPBACK
) -> Application:
    """Return the server's application.

    Args:
        catalogs: in the order in which they were named.
        titles: of each, for people.
        title: heading of the page.
        host: the address that it listens on; on loopback it answers to loopback's names only.
    """
    page, plotly = served(title).encode(), library()
    code = {name: text.encode() for name, text in modules().items()}
    local = host in ("localhost", "::1") or host.startswith("127.")
    # One thread reads: the readers of stores are not made for several.
    data = {"answers": Answers(catalogs, titles), "reading": ThreadPoolExecutor(1)}
    script = "text/javascript"
    return Application(
        [
            (r"/", _File, {"read": lambda _: page, "kind": "text/html"}),
            (r"/page/(\w+)\.js", _File, {"read": code.get, "kind": script}),
            (r"/plotly\.js", _File, {"read": lambda _: plotly, "kind": script}),
            (r"/data/(.+)", _Data, data),
        ],
        names={"localhost", LOOPBACK, "::1", host} if local else None,
        compress_response=True,
        log_function=lambda handler: None,
    )


def serve(app: Application, *, host: str = LOOPBACK, port: int = PORT) -> None:
    """Serve until interrupted, and print where.

    Raises:
        UserError: the port is in use, or the address is not one of this machine.
    """
    try:
        sockets = bind_sockets(port, address=host)
    except socket.gaierror as error:
        raise UserError(f"no address {host!r} on this machine: choose another --host") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} of {host} is in use: choose another --port (0: any free one)"
            ) from error
        if error.errno in (errno.EADDRNOTAVAIL, errno.EACCES):
            raise UserError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
        raise
    asyncio.run(_run(app, sockets, host))


async def _run(app: Application, sockets: list[socket.socket], host: str) -> None:
    server = HTTPServer(app)
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    print(f"Explorer: http://{shown}:{port}/  (Ctrl-C ends it)", flush=True)
    near = "localhost" if host in (LOOPBACK, "localhost", "0.0.0.0", "::", "") else shown
    if line := ssh_line(os.environ, port, socket.gethostname(), near):
        print(f"From your own machine: {line}", flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    server.stop()


def ssh_line(
    environment: Mapping[str, str], port: int, machine: str, host: str = "localhost"
) -> str | None:
    """Return the command that forwards the port, on a cluster or behind SSH; None elsewhere.

    Args:
        environment: variables of the process.
        port: of the server.
        machine: name of this machine.
        host: address of the server, as this machine calls it.
    """
    user: Any = environment.get("USER") or getuser()
    forward = f"-L {port}:{host}:{port}"
    if "SLURM_JOB_ID" in environment:
        node = environment.get("SLURMD_NODENAME", machine)
        login = environment.get("SLURM_SUBMIT_HOST")
        through = f"-J {user}@{login} " if login and login != node else ""
        return f"ssh {through}{forward} {user}@{node}"
    if "SSH_CONNECTION" in environment:
        return f"ssh {forward} {user}@{machine}"
    return None

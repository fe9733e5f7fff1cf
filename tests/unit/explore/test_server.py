"""The server: its answers, one sentence for each fault, and the line for SSH."""

import json
import socket
import threading
from http.client import HTTPConnection

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.testing import bind_unused_port

from blockcoupling.errors import UserError
from blockcoupling.explore.server import Answers, application, serve, ssh_line


@pytest.fixture(scope="module")
def port(explored):
    bound, number = bind_unused_port()
    started, loops = threading.Event(), []

    def run() -> None:
        loop = IOLoop(make_current=True)
        HTTPServer(application([explored], ["small"], "Small")).add_sockets([bound])
        loops.append(loop)
        loop.add_callback(started.set)
        loop.start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(30)
    yield number
    loops[0].add_callback(loops[0].stop)
    thread.join(30)


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_it_sends_the_page_its_modules_and_payloads(port):
    status, page = get(port, "/")
    assert (status, b"<title>Small</title>" in page) == (200, True)
    assert get(port, "/page/main.js")[0] == get(port, "/plotly.js")[0] == 200
    status, content = get(port, "/data/damage/0/neox-b/step64/heldout")
    assert (status, "changes" in json.loads(content)) == (200, True)


@pytest.mark.parametrize("path", ["/page/none.js", "/page/../server.py", "/etc/passwd"])
def test_it_sends_nothing_else(port, path):
    assert get(port, path)[0] == 404


def test_a_fault_is_one_sentence(port):
    status, content = get(port, "/data/matrices/0/none/step64/heldout")
    assert status == 404
    assert json.loads(content)["error"].startswith("Expected one entry with")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("damage/a/b: x is gone; run it again"), "damage/a/b: x is gone; run it again"),
        (UserError("no block 9"), "No block 9"),
        (ConnectionRefusedError(111, "Connect call failed"), "The server of this catalog does not"),
    ],
)
def test_a_fault_keeps_the_name_of_an_entry_and_says_who_does_not_answer(
    explored, monkeypatch, error, sentence
):
    def fails(*_):
        raise error

    monkeypatch.setattr("blockcoupling.explore.server.payload", fails)
    status, content = Answers([explored], ["small"]).answer("points/0")
    assert (status, json.loads(content)["error"][: len(sentence)]) == (404, sentence)


def test_it_answers_to_no_name_but_its_own(port):
    assert get(port, "/", Host=f"localhost:{port}")[0] == 200
    assert get(port, "/data/index", Host="elsewhere.example")[0] == 403


def test_a_port_in_use_is_said(explored):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {number} of 127\.0\.0\.1 is in use: choose"):
            serve(application([explored], ["small"], "Small"), port=number)


def test_an_address_of_another_machine_is_said(explored):
    with pytest.raises(UserError, match=r"cannot listen on 192\.0\.2\.1"):
        serve(application([explored], ["small"], "Small", "192.0.2.1"), host="192.0.2.1", port=0)


def test_line_that_forwards_the_port():
    assert ssh_line({"USER": "me"}, 8899, "laptop") is None
    login = {"USER": "me", "SSH_CONNECTION": "10.0.0.1 5 10.0.0.2 22"}
    assert ssh_line(login, 8899, "login1") == "ssh -L 8899:localhost:8899 me@login1"
    other = "ssh -L 80:10.0.0.2:80 me@login1"  # localhost would not answer there
    assert ssh_line(login, 80, "login1", "10.0.0.2") == other
    job = {**login, "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n3", "SLURM_SUBMIT_HOST": "login1"}
    assert ssh_line(job, 80, "n3") == "ssh -J me@login1 -L 80:localhost:80 me@n3"

"""The queue on disk: commands in processes of their own, killed, stopped, and taken up again by the next server."""

import json
import os
import signal
import sys
import threading
import time

import pytest

pytest.importorskip("pydantic")

from crystalgfn.app import jobs
from crystalgfn.app.jobs import JobQueue
from crystalgfn.app.plans import Plan
from crystalgfn.errors import CheckpointError

PLAN = Plan(kind="sample", title="a test", commands=[["sample", "out={out}"]], python="out = '{out}'")


def until(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Runs a Python program in the place of crystalgfn."""

    def replace(text):
        path = tmp_path / "program.py"
        path.write_text(text)
        monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, str(path)))

    return replace


SLEEP = (
    "import os, pathlib, sys, time\npathlib.Path(sys.argv[2][4:], 'pid').write_text(str(os.getpid()))\ntime.sleep(60)"
)


def test_a_command_runs_in_its_folder_and_its_words_are_kept(tmp_path, program):
    program("import sys; print('said', sys.argv[1:])")
    with JobQueue(tmp_path / "runs") as queue:
        job = queue.add(PLAN)
        until(lambda: job.state == "done")
        folder = queue.folder(job)
    assert job.python == f"out = '{folder}'"
    assert (folder / "app" / "log.txt").read_text().splitlines() == [
        f"$ crystalgfn sample out={folder}", f"said ['sample', 'out={folder}']",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; print('error: no such element.', file=sys.stderr); sys.exit(2)", "no such element."),
        ("raise SystemExit(7)", "the run ended with exit code 7; its log says more"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the run was killed (signal 9)"),
    ],
)
def test_a_run_that_fails_says_why_and_the_next_is_made(tmp_path, program, text, words):
    program(text)
    with JobQueue(tmp_path / "runs") as queue:
        job = queue.add(PLAN)
        until(lambda: job.state == "failed")
        assert job.words == words
        program("pass")
        other = queue.add(PLAN)
        until(lambda: other.state == "done")


def test_a_runner_that_raises_leaves_the_queue_at_work(tmp_path):
    def runner(work):
        if work.job.title == "bad":
            raise RuntimeError("no")

    with JobQueue(tmp_path, runner) as queue:
        bad = queue.add(Plan(kind="sample", title="bad", commands=[], python=""))
        good = queue.add(PLAN)
        until(lambda: good.state == "done")
        assert (bad.state, bad.words) == ("failed", "RuntimeError: no")


def test_stopping_ends_the_command_and_takes_waiting_ones_out(tmp_path, program):
    program(SLEEP)
    with JobQueue(tmp_path / "runs") as queue:
        first, second = queue.add(PLAN), queue.add(PLAN)
        pid = queue.folder(first) / "pid"
        until(pid.exists)
        assert queue.ahead(second) == 1
        queue.stop(second)
        queue.stop(first)
        until(lambda: first.state == "stopped")
        assert second.state == "stopped"
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


def test_what_worked_or_waited_goes_on_with_the_next_server(tmp_path, program):
    program(SLEEP)
    with JobQueue(tmp_path / "runs") as queue:
        first, second = queue.add(PLAN), queue.add(PLAN)
        pid = queue.folder(first) / "pid"
        until(lambda: pid.exists() and pid.read_text())
    with pytest.raises(ProcessLookupError):  # the command went with the server
        os.kill(int(pid.read_text()), 0)
    stored = json.loads((queue.folder(first) / "app" / "job.json").read_text())
    assert stored["state"] == "queued"
    program("pass")
    with JobQueue(tmp_path / "runs") as again:
        until(lambda: all(one.state == "done" for one in again.jobs()))
        assert [one.id for one in again.jobs()] == [second.id, first.id]


def test_a_run_that_a_killed_server_left_as_running_is_made_again(tmp_path):
    with JobQueue(tmp_path, lambda work: None) as queue:
        job = queue.add(PLAN)
        until(lambda: job.state == "done")
    path = tmp_path / job.id / "app" / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "running"}))
    (tmp_path / "broken" / "app").mkdir(parents=True)
    (tmp_path / "broken" / "app" / "job.json").write_text("{")
    seen = threading.Event()
    with JobQueue(tmp_path, lambda work: seen.set()) as queue:
        assert seen.wait(10)
        until(lambda: queue.get(job.id).state == "done")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells the children")
def test_commands_die_with_a_server_that_is_killed(tmp_path):
    program = tmp_path / "server.py"
    (tmp_path / "crystalgfn_stub.py").write_text(SLEEP)
    program.write_text(
        "import sys, time\nfrom crystalgfn.app import jobs\nfrom crystalgfn.app.plans import Plan\n"
        f"jobs.PROGRAM = (sys.executable, {str(tmp_path / 'crystalgfn_stub.py')!r})\n"
        f"queue = jobs.JobQueue({str(tmp_path / 'runs')!r}).__enter__()\n"
        "queue.add(Plan(kind='sample', title='t', commands=[['sample', 'out={out}']], python=''))\n"
        "time.sleep(60)\n"
    )
    import subprocess

    server = subprocess.Popen([sys.executable, "-W", "ignore", str(program)])
    until(lambda: any(path.read_text() for path in tmp_path.glob("runs/*/pid")), 60)
    (pid,) = (int(path.read_text()) for path in tmp_path.glob("runs/*/pid"))
    server.send_signal(signal.SIGKILL)
    server.wait()

    def gone():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    until(gone)


def test_runs_of_a_terminal_are_shown(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    content = {"command": "crystalgfn sample n=3 'elements=[Li, O]' out=runs/mine", "seconds": 5}
    (folder / "run.json").write_text(json.dumps(content))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text(json.dumps({"command": "crystalgfn train"}))
    with JobQueue(tmp_path, lambda work: None) as queue:
        (job,) = queue.jobs()
    assert (job.id, job.kind, job.state) == ("mine", "sample", "done")
    assert job.commands == [["sample", "n=3", "elements=[Li, O]", "out=runs/mine"]]


def test_two_servers_do_not_share_a_folder(tmp_path):
    with JobQueue(tmp_path, lambda work: None), pytest.raises(CheckpointError):
        JobQueue(tmp_path, lambda work: None).__enter__()

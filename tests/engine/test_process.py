"""The supervised engine process: deaths, hangs, nonsense, cancellation, orphans."""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from nostrain.engine import EngineProcess, EngineSettings
from nostrain.engine.frames import MAX_FRAME, Request, request_frame
from nostrain.errors import ConfigError, LocalProtocolError, Unavailable
from nostrain.protocol.jobs import TrainJob, ValidationJob, ValidationResult
from nostrain.protocol.manifest import CodecSpec, ModelSpec, TrainingSpec

FAKE = str(Path(__file__).with_name("fake_engine.py"))
SETTINGS = EngineSettings(command=(sys.executable, FAKE), threads=3)


def job(behaviour: str, tokens: int = 1) -> ValidationJob:
    return ValidationJob(model=ModelSpec(), checkpoint=behaviour, shard="", tokens=tokens, sequence_length=1, eval_batch=1)


async def ask(engine: EngineProcess, behaviour: str, tokens: int = 1) -> ValidationResult:
    result = await engine.run(job(behaviour, tokens))
    assert isinstance(result, ValidationResult)
    return result


@contextmanager
def watched(pid: int) -> Iterator[select.poll]:
    """A poll object that becomes ready when process `pid`, alive now, ends."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield poll
    finally:
        os.close(descriptor)


async def test_one_process_answers_many_jobs() -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        assert engine.starts == 0
        first, second = await ask(engine, "ok", 5), await ask(engine, "ok", 6)
        assert (first.tokens, second.tokens) == (5, 6)
        assert first.loss_nanonats == second.loss_nanonats != os.getpid()
        assert engine.starts == 1


async def test_jobs_that_come_together_run_in_order_of_arrival() -> None:
    done: list[int] = []

    async def one(engine: EngineProcess, number: int) -> None:
        assert (await ask(engine, "ok", number)).tokens == number
        done.append(number)

    async with EngineProcess.open(SETTINGS) as engine, trio.open_nursery() as nursery, engine._turn:
        for number in range(8):
            nursery.start_soon(one, engine, number)
            await trio.testing.wait_all_tasks_blocked()
    assert done == list(range(8))


async def test_warm_starts_the_process_before_the_first_job() -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        await engine.warm()
        await engine.warm()
        assert engine.starts == 1
        await ask(engine, "ok")
        assert engine.starts == 1


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("die", r"died \(status 3; last line: the last straw\)"),
        ("half a frame", "died"),
        ("too large a frame", "promises 2147483648 bytes"),
        ("garbage", "nonsense"),
        ("another job's reply", "to job 2 instead of 1"),
        ("neither", "exactly one"),
        ("both", "exactly one"),
        ("unknown family", "nonsense"),
    ],
)
async def test_a_process_that_fails_is_replaced(behaviour: str, reason: str) -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        with pytest.raises(Unavailable, match=reason) as caught:
            await ask(engine, behaviour)
        assert "\n" not in str(caught.value)
        assert (await ask(engine, "ok", 9)).tokens == 9
        assert engine.starts == 2


async def test_a_process_that_died_between_two_jobs_costs_nobody_an_error() -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        pid = (await ask(engine, "ok")).loss_nanonats
        with watched(pid) as poll:
            os.kill(pid, signal.SIGKILL)
            assert await trio.to_thread.run_sync(poll.poll, 10_000)
        assert (await ask(engine, "ok")).loss_nanonats != pid
        assert engine.starts == 2


async def test_a_process_that_hangs_is_given_up_after_its_time() -> None:
    async with EngineProcess.open(EngineSettings(command=SETTINGS.command, job_timeout_s=1.0)) as engine:
        with pytest.raises(Unavailable, match=r"did not answer within 1.0 s \(signal 9; last line: hanging\)"):
            await ask(engine, "hang")
        assert (await ask(engine, "ok")).tokens == 1


async def test_cancellation_kills_the_process_and_the_next_job_gets_a_fresh_one(caplog: pytest.LogCaptureFixture) -> None:
    hanging = trio.Event()

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().endswith("hanging"):
                hanging.set()

    watch = Watch()
    logging.getLogger("nostrain.engine").addHandler(watch)
    try:
        async with EngineProcess.open(SETTINGS) as engine:
            pid = (await ask(engine, "ok")).loss_nanonats
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, engine, "hang")
                await hanging.wait()
                nursery.cancel_scope.cancel()
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            assert (await ask(engine, "ok")).tokens == 1
    finally:
        logging.getLogger("nostrain.engine").removeHandler(watch)


async def test_what_the_engine_says_about_a_job_keeps_its_family_and_the_process() -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        with pytest.raises(LocalProtocolError, match="said so"):
            await ask(engine, "local")
        with pytest.raises(Unavailable, match="said so"):
            await ask(engine, "unavailable")
        assert engine.starts == 1


async def test_standard_error_goes_to_the_log_in_clean_short_lines(caplog: pytest.LogCaptureFixture) -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        await ask(engine, "long line")
    lines = [record.getMessage() for record in caplog.records if "xxx" in record.getMessage()]
    assert lines
    assert all("\x1b" not in line and len(line) < 5000 for line in lines)
    assert {record.name for record in caplog.records} == {"nostrain.engine"}


async def test_the_engine_sees_no_more_of_our_environment_than_it_needs(caplog: pytest.LogCaptureFixture) -> None:
    environment = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY": "x", "NOSTRAIN_NSEC": "x", "SSH_AUTH_SOCK": "x", "HTTPS_PROXY": "x"}
    async with EngineProcess.open(SETTINGS, environment) as engine:
        await ask(engine, "environment")
    said = next(record.getMessage() for record in caplog.records if "OMP_NUM_THREADS" in record.getMessage())
    assert said.endswith(" 3")
    assert "PATH" in said
    assert not {"AWS_SECRET_ACCESS_KEY", "NOSTRAIN_NSEC", "SSH_AUTH_SOCK", "HTTPS_PROXY"} & set(said.split())


async def test_a_program_that_is_not_there_is_a_configuration_error() -> None:
    async with EngineProcess.open(EngineSettings(python="/nonexistent/python")) as engine:
        with pytest.raises(ConfigError, match=r"engine\.python"):
            await engine.warm()


async def test_a_job_too_large_for_a_frame_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="does not fit"):
        request_frame(Request(1, job("x" * MAX_FRAME)))
    async with EngineProcess.open(SETTINGS) as engine:
        with pytest.raises(LocalProtocolError, match="does not fit"):
            await ask(engine, "x" * MAX_FRAME)
        assert (await ask(engine, "ok")).tokens == 1


async def test_closing_leaves_neither_the_process_nor_what_it_started() -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        pid = (await ask(engine, "ok")).loss_nanonats
        grandchild = (await ask(engine, "child")).tokens
        with watched(pid) as engine_poll, watched(grandchild) as grandchild_poll:
            await engine._drop()
            assert engine_poll.poll(10_000)
            assert grandchild_poll.poll(10_000)


DAEMON = """
import sys, trio
from nostrain.engine import EngineProcess, EngineSettings
from nostrain.protocol.jobs import ValidationJob
from nostrain.protocol.manifest import CodecSpec, ModelSpec, TrainingSpec

async def main():
    async with EngineProcess.open(EngineSettings(command=(sys.executable, sys.argv[1]))) as engine:
        job = ValidationJob(ModelSpec(), "ok", "", 1, 1, 1)
        print((await engine.run(job)).loss_nanonats, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_the_engine_does_not_outlive_a_daemon_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", DAEMON, FAKE], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        engine = int(daemon.stdout.readline())
        assert os.getpgid(engine) == engine
        with watched(engine) as poll:
            daemon.kill()
            assert poll.poll(10_000)


def train_job(behaviour: str, batch_size: int) -> TrainJob:
    training = TrainingSpec(batch_size=batch_size)
    return TrainJob(ModelSpec(), training, CodecSpec(), behaviour, "", "", 0, None, "", "")


async def micro_batch(engine: EngineProcess) -> int:
    """What the process that runs now was told on its command line."""
    return (await ask(engine, "micro batch")).tokens


async def test_a_process_that_died_of_training_is_followed_by_one_that_takes_half_as_much() -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        assert await micro_batch(engine) == 0
        for name, expected in (("SIGKILL", 4), ("SIGSEGV", 2), ("SIGABRT", 1), ("SIGKILL", 1)):
            with pytest.raises(Unavailable, match=rf"died \(signal {int(signal.Signals[name])}"):
                await engine.run(train_job(name, 9))
            assert await micro_batch(engine) == expected


async def test_what_the_owner_chose_is_halved_too() -> None:
    async with EngineProcess.open(msgspec.structs.replace(SETTINGS, micro_batch=6)) as engine:
        assert await micro_batch(engine) == 6
        with pytest.raises(Unavailable):
            await engine.run(train_job("SIGKILL", 64))
        assert await micro_batch(engine) == 3


async def test_other_deaths_say_nothing_about_memory() -> None:
    async with EngineProcess.open(SETTINGS) as engine:
        for behaviour in ("die", "SIGTERM"):
            with pytest.raises(Unavailable, match="died"):
                await engine.run(train_job(behaviour, 8))
        with pytest.raises(Unavailable, match="signal 9"):
            await ask(engine, "SIGKILL")
        assert await micro_batch(engine) == 0

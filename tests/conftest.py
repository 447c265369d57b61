"""Shared by every test: one printed seed, hypothesis profiles, skips that are seen."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import settings

SEED_VARIABLE = "NOSTRAIN_TEST_SEED"
IN_CI = os.environ.get("CI") == "true"

_SEED = pytest.StashKey[int]()
_LONGEST = ("tests/e2e", "tests/regtest", "tests/sim", "tests/sim_paid")

settings.register_profile("dev", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if IN_CI else "dev")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed of this run once, so that the header and every test agree on it."""
    config.stash[_SEED] = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(1 << 32))
    os.environ[SEED_VARIABLE] = str(config.stash[_SEED])  # pytest-xdist's processes are started later, and inherit it
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a script's background job ignores Ctrl-C, and so would everything that tests start
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest folders first, so that no process of pytest-xdist is left with a whole network to run when the others are done."""
    items.sort(key=lambda item: _LONGEST.index(_folder(item.nodeid)) if _folder(item.nodeid) in _LONGEST else len(_LONGEST))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """With `-n`: a file stays in one process, and so do all of tests/e2e, because every one of them starts a dozen processes of its own."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/e2e" if _folder(nodeid) == "tests/e2e" else super()._split_scope(nodeid)

    return Scheduling(config, log)


def _folder(nodeid: str) -> str:
    return "/".join(nodeid.split("::")[0].split("/")[:2])


def _seed_line(config: pytest.Config) -> str:
    return f"seed {config.stash[_SEED]} ({SEED_VARIABLE}={config.stash[_SEED]} repeats this run)"


def pytest_report_header(config: pytest.Config) -> str:
    """The seed, above the results."""
    return _seed_line(config)


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The seed of this run: from the environment, or fresh and printed."""
    return pytestconfig.stash[_SEED]


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """A generator of this test's own: the same for the same seed, whatever other tests run and in which order."""
    return random.Random(f"{seed}/{request.node.nodeid}")


@pytest.fixture(autouse=True)
def _seeded(rng: random.Random) -> Iterator[None]:
    """Code under test that draws from the global generator repeats too."""
    state = random.getstate()
    random.seed(rng.getrandbits(64))
    yield
    random.setstate(state)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Seconds per folder; every reason for a skip, in a section of its own; the seed again where a failure is being read."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[_folder(report.nodeid)] += report.duration
    if seconds:
        longest = sorted(seconds.items(), key=lambda item: -item[1])
        terminalreporter.write_line("seconds: " + ", ".join(f"{folder} {spent:.1f}" for folder, spent in longest))
    skips = Counter(report.longrepr[2] for report in terminalreporter.getreports("skipped") if isinstance(report.longrepr, tuple))
    if skips:
        terminalreporter.section("SKIPPED: these were NOT tested", yellow=True, bold=True)
        for reason, count in skips.most_common():
            terminalreporter.write_line(f"{count} × {reason}", yellow=True)
    if terminalreporter.getreports("failed") or terminalreporter.getreports("error"):
        terminalreporter.write_line(_seed_line(config), red=True)

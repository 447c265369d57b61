"""The configuration file: precedence, defaults, and one clear line for a file or a key that cannot be read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nostrain.config import BlobsConfig, DaemonConfig, EngineConfig, TimingConfig, load_config
from nostrain.protocol.manifest import OuterSpec, TimingSpec
from nostrain.units import Ppm
from tests.config.files import COORDINATOR, WORKER, refused, write


def test_a_worker_needs_four_lines_and_gets_the_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, WORKER))
    assert config == DaemonConfig(name="w1", data_dir="/tmp/w1", roles=("worker",), relays=("ws://127.0.0.1:7777",))
    assert config.control_path == Path("/tmp/w1/control.sock")
    assert config.engine == EngineConfig(kind="pytorch", threads=1)
    assert config.join.run == "any"


def test_a_coordinator_describes_its_run(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, COORDINATOR))
    assert config.coordinator is not None
    run = config.coordinator.run
    assert (run.name, run.rounds, run.text, run.model_spec().hidden_size) == ("first", 8, "", 128)
    assert run.timing == TimingConfig(commit_s=30)
    assert run.timing.spec() == TimingSpec(commit_s=30)
    assert config.blobs == BlobsConfig(bind="127.0.0.1:3000", servers=("https://blobs.example.org",))


def test_data_curators_and_a_pretrained_checkpoint(tmp_path: Path) -> None:
    path, run = write(tmp_path, COORDINATOR), "coordinator.run"
    key = "ab" * 32
    config = load_config(
        path, (f"{run}.dataset=/data", f'{run}.curators=["{key}"]', f"{run}.init=/init", f'join.curators=["{key}"]', "data.cache_mb=7")
    )
    assert config.coordinator is not None
    found = config.coordinator.run
    assert (found.dataset, found.curators, found.init, config.join.curators, config.data.cache_mb) == ("/data", (key,), "/init", (key,), 7)
    assert refused(path, (f"{run}.dataset=/data", f"{run}.text=/text")).reason == "a run learns from one of text and dataset"
    assert refused(path, (f'{run}.curators=["{key}"]',)).reason == "only a built dataset can be signed"
    assert refused(path, ('join.curators=["npub1xyz"]',)).key == "join.curators"
    assert refused(path, ("data.cache_mb=0",)).key == "data.cache_mb"
    assert refused(path, (f"{run}.learning_rate_ppb=0",)).key == f"{run}.learning_rate_ppb"


def test_the_rule_of_the_outer_step_becomes_the_manifests(tmp_path: Path) -> None:
    path = write(tmp_path, COORDINATOR)
    config = load_config(
        path, ("coordinator.run.outer.rule=trim", "coordinator.run.outer.alpha_ppm=750000", "coordinator.run.outer.parameter=1")
    )
    assert config.coordinator is not None
    assert config.coordinator.run.outer.spec() == OuterSpec("trim", Ppm(750_000), 1)
    for overrides in (("coordinator.run.outer.parameter=1",), ("coordinator.run.outer.rule=shrink",)):
        error = refused(path, overrides)
        assert error.key == "coordinator.run.outer.parameter"
        assert "the rule" in error.reason


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = write(tmp_path, COORDINATOR)
    env = {"NOSTRAIN_LOG_LEVEL": "error", "NOSTRAIN_ENGINE__THREADS": "2", "NOSTRAIN_BLOBS__MAX_BYTES": "7", "PATH": "/bin"}
    config = load_config(path, ["engine.threads=3"], env)
    assert config.log_level == "error"
    assert config.engine.threads == 3
    assert config.blobs.max_bytes == 7
    assert config.blobs.bind == "127.0.0.1:3000"
    assert load_config(path).log_level == "debug"
    assert load_config(path).engine.threads == 1


def test_values_given_as_text_take_the_type_of_their_key(tmp_path: Path) -> None:
    path = write(tmp_path, COORDINATOR)
    config = load_config(
        path, ["name=007", "relays=ws://a.example, ws://b.example", "coordinator.run.seed=5", 'roles=["coordinator", "blobs"]']
    )
    assert config.name == "007"
    assert config.relays == ("ws://a.example", "ws://b.example")
    assert config.coordinator is not None
    assert config.coordinator.run.seed == 5
    assert config.roles == ("coordinator", "blobs")


def test_variables_of_the_tests_and_tools_are_no_settings(tmp_path: Path) -> None:
    env = {"NOSTRAIN_TEST_SEED": "1", "NOSTRAIN_CONFIG": "x", "NOSTRAIN_SOCKET": "y"}
    assert load_config(write(tmp_path, WORKER), env=env).name == "w1"


def test_missing_file(tmp_path: Path) -> None:
    error = refused(tmp_path / "none.toml")
    assert error.key == "config"
    assert "no such file" in error.reason


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path).reason


@pytest.mark.parametrize("text", ["", "\n\n", "   "])
def test_empty_file(tmp_path: Path, text: str) -> None:
    assert "empty" in refused(write(tmp_path, text)).reason


def test_a_file_too_large_to_be_a_configuration(tmp_path: Path) -> None:
    assert "larger" in refused(write(tmp_path, WORKER + "#" * (1 << 20))).reason


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    assert "line 3" in refused(write(tmp_path, b'name = "x"\n\ndata_dir = "\xff"\n')).reason


def test_syntax_error_names_the_line(tmp_path: Path) -> None:
    assert "line 7" in refused(write(tmp_path, WORKER + "\nlog_level == 3\n")).reason


def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path: Path, rng: random.Random) -> None:
    complete = COORDINATOR.index("rounds = 8") + len("rounds = 8")
    for cut in rng.sample(range(complete), 60):
        assert refused(write(tmp_path, COORDINATOR[:cut])).reason


@pytest.mark.parametrize(
    ("line", "key", "meant"),
    [
        ("realys = []", "realys", "relays"),
        ("loglevel = 'info'", "loglevel", "log_level"),
        ("threads = 2", "threads", "engine.threads"),
        ("[engine]\nthread = 2", "engine.thread", "engine.threads"),
        ("[coordinator.run]\nname = 'x'\nrounds = 1\nround = 2", "coordinator.run.round", "coordinator.run.rounds"),
        ("[coordinater]\nx = 1", "coordinater", "coordinator"),
    ],
)
def test_unknown_key_suggests_the_nearest(tmp_path: Path, line: str, key: str, meant: str) -> None:
    error = refused(write(tmp_path, WORKER + line + "\n"))
    assert error.key == key
    assert "unknown key" in error.reason
    assert f"Did you mean {meant}?" in error.fix


def test_unknown_keys_of_command_line_and_environment_name_their_source(tmp_path: Path) -> None:
    path = write(tmp_path, WORKER)
    assert "--set" in refused(path, ("engine.thread=2",)).reason
    assert "NOSTRAIN_ENGINE__THREAD" in refused(path, (), {"NOSTRAIN_ENGINE__THREAD": "2"}).reason
    assert "key=value" in refused(path, ("engine.threads",)).reason
    assert "unknown key" in refused(path, ("engine={}",)).reason


@pytest.mark.parametrize(
    ("line", "key", "reason"),
    [
        ('[engine]\nthreads = "two"', "engine.threads", "expected int, got str"),
        ("[engine]\nthreads = 0", "engine.threads", "expected int >= 1"),
        ("[engine]\nthreads = true", "engine.threads", "expected int, got bool"),
        ("engine = 3", "engine", "expected a table, got int"),
        ("[[engine]]\nthreads = 1", "engine", "expected a table, got a list"),
        ("control = 3", "control", "expected str, got int"),
        ("[blobs]\nservers = [1]", "blobs.servers[0]", "expected str, got int"),
        ("[coordinator]", "coordinator.run", "missing"),
        ("[coordinator.run]\nname = 'x'", "coordinator.run.rounds", "missing"),
        ("[coordinator.run]\nname = 'x'\nrounds = 1.5", "coordinator.run.rounds", "expected int, got float"),
        ("[coordinator.run]\nname = 'x'\nrounds = 1\nmodel = 'huge'", "coordinator.run.model", "not one of tiny"),
        ("log_level = 'loud'", "log_level", "not one of debug, info, warning, error"),
        ("[engine]\nkind = 'jax'", "engine.kind", "not one of pytorch, mlx"),
    ],
)
def test_wrong_type_names_key_and_types(tmp_path: Path, line: str, key: str, reason: str) -> None:
    error = refused(write(tmp_path, WORKER + line + "\n"))
    assert error.key == key
    assert reason in error.reason


@pytest.mark.parametrize("key", ["name", "data_dir", "roles"])
def test_required_keys(tmp_path: Path, key: str) -> None:
    text = "\n".join(line for line in WORKER.splitlines() if not line.startswith(key + " "))
    error = refused(write(tmp_path, text))
    assert error.key == key
    assert "missing" in error.reason


def test_unknown_role_suggests_the_nearest(tmp_path: Path) -> None:
    error = refused(write(tmp_path, WORKER), ("roles=validater",))
    assert error.key == "roles"
    assert "validator" in error.fix

"""The configuration file: precedence, and one clear line for everything that can be wrong with it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nostrain.config import BlobsConfig, DaemonConfig, EngineConfig, SettlementConfig, TimingConfig, load_config
from nostrain.config.own_node import own_node
from nostrain.config.runs import joined_run
from nostrain.daemon.policies import channel_policy, withdraw_policy
from nostrain.errors import ConfigError
from nostrain.protocol.discovery import RunAddress
from nostrain.protocol.manifest import OuterSpec, SettlementSpec, TimingSpec
from nostrain.units import EventId, Msat, Ppm, Pubkey
from nostrain.wire.nip19_run import nevent

NODE = f"{'02' * 33}@127.0.0.1:9735"
WORKER = """
name = "w1"
data_dir = "/tmp/w1"
roles = ["worker"]
relays = ["ws://127.0.0.1:7777"]
"""

COORDINATOR = """
name = "c"
data_dir = "/tmp/c"
roles = ["coordinator", "blobs"]
relays = ["wss://relay.example.org", "ws://127.0.0.1:7777"]
log_level = "debug"

[blobs]
bind = "127.0.0.1:3000"
servers = ["https://blobs.example.org"]

[coordinator.run]
name = "first"
rounds = 8
min_workers = 4
min_validators = 3
threshold = 2

[coordinator.run.timing]
commit_s = 30
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "nostraind.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, overrides: tuple[str, ...] = (), env: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, env)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))
    assert caught.value.fix
    return caught.value


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


def paid(pool_sat: int, **settings: int) -> tuple[str, ...]:
    """Overrides for a run that pays four workers four levels."""
    prefix = "coordinator.run.settlement"
    named = {"slots": 4, "pool_sat": pool_sat} | settings
    return (f"{prefix}.mode=hold", *(f"{prefix}.{key}={value}" for key, value in named.items()))


def channels() -> tuple[str, ...]:
    """Overrides for a coordinator that opens channels by itself."""
    return ("coordinator.channels.open=true", "coordinator.channels.max_total_sat=100000", "coordinator.channels.max_day_sat=50000")


ADDRESSES = {
    "bitcoin": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "testnet": "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
    "signet": "tb1p8shlefa4fl7yfdcw9snel0w9449wf866dxtr5newstxke0ggl04sxdc87n",
    "regtest": "bcrt1p8shlefa4fl7yfdcw9snel0w9449wf866dxtr5newstxke0ggl04st5jptf",
}


def withdrawing(network: str = "regtest", to: str = "", above_sat: int = 100_000) -> tuple[str, ...]:
    """Overrides for a node whose money goes to an address."""
    prefix = "lightning.withdraw"
    where = (f"lightning.network={network}", "lightning.socket=/tmp/rpc")
    return (*where, f"{prefix}.to={to or ADDRESSES[network]}", f"{prefix}.above_sat={above_sat}")


@pytest.mark.parametrize("network", ADDRESSES)
def test_money_goes_to_an_address_of_the_right_network_or_the_daemon_does_not_start(tmp_path: Path, network: str) -> None:
    path = write(tmp_path, WORKER)
    policy = withdraw_policy(load_config(path, withdrawing(network)))
    assert policy is not None
    assert (policy.address, policy.above_msat, policy.keep_msat) == (ADDRESSES[network], 100_000_000, 20_000_000)
    prefix = ADDRESSES[network].partition("1")[0]
    for other in (name for name, address in ADDRESSES.items() if address.partition("1")[0] != prefix):
        assert refused(path, withdrawing(network, ADDRESSES[other])).key == "lightning.withdraw.to"
    assert withdraw_policy(load_config(path)) is None


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "checksum"),
        ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "not a segwit address"),
        ("bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y", "do not have yet"),
        ("BC1SW50QGDZ25J", "do not have yet"),
        ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "do not have yet"),
    ],
)
def test_addresses_that_lose_money_are_refused(tmp_path: Path, to: str, reason: str) -> None:
    assert reason in refused(write(tmp_path, WORKER), withdrawing("bitcoin", to)).reason


def test_a_withdrawal_needs_a_node_and_an_amount_that_is_worth_it(tmp_path: Path) -> None:
    path = write(tmp_path, WORKER)
    assert refused(path, withdrawing(above_sat=99_999)).key == "lightning.withdraw.above_sat"
    assert refused(path, (*withdrawing(), "lightning.socket=")).key == "lightning.socket"
    assert refused(path, (*withdrawing(), "lightning.withdraw.keep_sat=1")).key == "lightning.withdraw.keep_sat"
    assert refused(path, (*withdrawing(), "lightning.withdraw.reserve_sat=1")).key == "lightning.withdraw.reserve_sat"


def test_channels_opened_by_policy_are_off_unless_wanted_and_within_limits(tmp_path: Path) -> None:
    plain = load_config(write(tmp_path, COORDINATOR)).coordinator
    assert plain is not None
    assert not plain.channels.open
    config = load_config(write(tmp_path, COORDINATOR), (*paid(6400, fee_sat=80), *channels(), "lightning.socket=/tmp/rpc"))
    policy = channel_policy(config)
    assert policy is not None
    assert (policy.to, policy.total_msat, policy.day_msat, policy.private) == ("ticket", 100_000_000, 50_000_000, False)
    assert channel_policy(load_config(write(tmp_path, COORDINATOR))) is None


def test_a_schedule_that_just_fits_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, COORDINATOR)
    for overrides in (paid(6400, fee_sat=80), paid(16, feerate_perkb=0)):
        assert load_config(path, overrides).coordinator is not None
    error = refused(path, paid(6399))
    assert "a level pays 399 sat" in error.reason
    assert "Raise pool_sat to 6400" in error.fix


@pytest.mark.parametrize(("key", "word"), [("level_msat", "pool_sat"), ("fee_msat", "fee_sat")])
def test_keys_of_earlier_versions_say_what_to_write_now(tmp_path: Path, key: str, word: str) -> None:
    error = refused(write(tmp_path, COORDINATOR), (f"coordinator.run.settlement.{key}=5",))
    assert error.key == f"coordinator.run.settlement.{key}"
    assert word in error.fix


def test_settlement_becomes_the_manifests_settlement() -> None:
    spec = SettlementConfig(mode="hold", pool_sat=8000, slots=4, fee_sat=20).spec("http://127.0.0.1:1", "signet")
    paid = SettlementSpec(
        mode="hold", pool_msat=Msat(8_000_000), slots=4, fee_msat=Msat(20_000), ticket_server="http://127.0.0.1:1", network="signet"
    )
    assert spec == paid
    assert spec.level_msat(4) == 500_000
    assert SettlementConfig().spec("http://127.0.0.1:1", "regtest") == SettlementSpec()


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


def test_a_node_is_named_by_its_socket_or_by_its_address_with_a_rune(tmp_path: Path) -> None:
    path = write(tmp_path, WORKER)
    found = load_config(path, (f"lightning.node={NODE}", "lightning.rune_file=/run/rune"), {}).lightning
    assert found.given
    assert own_node(found.node) == ("02" * 33, "127.0.0.1", 9735)
    assert own_node(f"{'03' * 33}@[::1]:19846") == ("03" * 33, "::1", 19846)
    assert load_config(path, ("lightning.socket=/rpc",), {}).lightning.given
    assert not load_config(path, (), {}).lightning.given
    both = refused(path, (f"lightning.node={NODE}", "lightning.rune_file=/run/rune", "lightning.socket=/rpc"))
    assert both.key == "lightning.node"


@pytest.mark.parametrize("name", ["", "W1", "a b", "-x", "ü", "x" * 64, "../x"])
def test_a_name_is_fit_for_paths_and_logs(tmp_path: Path, name: str) -> None:
    assert refused(write(tmp_path, WORKER), (f"name={name}",)).key == "name"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("relays=http://relay.example", "relays"),
        ("relays=relay.example", "relays"),
        ("relays=ws://", "relays"),
        ("relays=ws://h:99999", "relays"),
        ("relays=ws://[::1", "relays"),
        ("relays=ws://a.example,ws://a.example/", "relays"),
        ("relays=ws://a.example/?x=1", "relays"),
        ("relays=", "relays"),
        ("blobs.servers=ftp://x", "blobs.servers"),
        ("blobs.bind=3000", "blobs.bind"),
        ("engine.device=gpu", "engine.device"),
        ("engine.device=tpu", "engine.device"),
        ("engine.precision=float16", "engine.precision"),
        ("engine.micro_batch=-1", "engine.micro_batch"),
        ("blobs.bind=127.0.0.1:http", "blobs.bind"),
        ("blobs.bind=127.0.0.1:70000", "blobs.bind"),
        ("blobs.max_bytes=99999999999999", "blobs.max_bytes"),
        ("join.run=first", "join.run"),
        ("join.run=nevent1qqqq", "join.run"),
        ("join.coordinator=npub1xyz", "join.coordinator"),
        ("roles=worker,worker", "roles"),
        ("roles=worker,validator", "roles"),
        ("roles=", "roles"),
        ("roles=coordinator", "coordinator.run"),
        ("lightning.address=node.example:9735", "lightning.address"),
        ("lightning.address=203.0.113.7", "lightning.address"),
        ("lightning.rune_file=/rune", "lightning.node"),
        (f"lightning.node={NODE}", "lightning.rune_file"),
        ("lightning.node=127.0.0.1:9735", "lightning.node"),
        (f"lightning.node={NODE}0", "lightning.node"),
        ("lightning.node=02abc@127.0.0.1:9735", "lightning.node"),
    ],
)
def test_values_that_cannot_work(tmp_path: Path, override: str, key: str) -> None:
    assert refused(write(tmp_path, WORKER), (override,)).key == key


@pytest.mark.parametrize("option", ["device=cuda", "precision=bfloat16", "activation_checkpointing=true", "compile=true"])
def test_what_mlx_does_not_have_is_refused(tmp_path: Path, option: str) -> None:
    key = option.partition("=")[0]
    assert refused(write(tmp_path, WORKER), ("engine.kind=mlx", f"engine.{option}")).key == f"engine.{key}"
    config = load_config(write(tmp_path, WORKER), [f"engine.{option}"])
    assert getattr(config.engine, key) != getattr(EngineConfig(), key)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("roles=blobs",), "roles"),
        (("roles=coordinator", "blobs.servers=[]"), "blobs.servers"),
        (("coordinator.run.threshold=4",), "coordinator.run.threshold"),
        (("coordinator.run.settlement.mode=hold",), "coordinator.run.settlement.pool_sat"),
        (("coordinator.run.settlement.pool_sat=5",), "coordinator.run.settlement.mode"),
        (("coordinator.run.settlement.slots=5",), "coordinator.run.settlement.mode"),
        (paid(6400, slots=0), "coordinator.run.settlement.slots"),
        (paid(6400, slots=3), "coordinator.run.settlement.slots"),
        (paid(6399), "coordinator.run.settlement.pool_sat"),
        (paid(6400, feerate_perkb=1001), "coordinator.run.settlement.pool_sat"),
        (paid(15, feerate_perkb=0), "coordinator.run.settlement.pool_sat"),
        (paid(6400, fee_sat=81), "coordinator.run.settlement.fee_sat"),
        (paid(6400, epoch_rounds=9), "coordinator.run.settlement.epoch_rounds"),
        (("coordinator.channels.open=true",), "coordinator.channels.open"),
        ((*paid(6400, fee_sat=80), "coordinator.channels.open=true"), "coordinator.channels.max_total_sat"),
        ((*paid(6400, fee_sat=80), *channels(), "coordinator.channels.max_day_sat=0"), "coordinator.channels.max_day_sat"),
        ((*paid(6400, fee_sat=80), *channels(), "coordinator.channels.max_day_sat=100001"), "coordinator.channels.max_day_sat"),
        ((*paid(6400), *channels()), "coordinator.channels.to"),
        ((*paid(6400, fee_sat=80), *channels(), "coordinator.channels.reserve_sat=1"), "coordinator.channels.reserve_sat"),
        (
            (*paid(6400, fee_sat=80), *channels(), *withdrawing()),
            "lightning.withdraw.to",
        ),
        (("coordinator.run.timing.commit_s=0",), "coordinator.run.timing.commit_s"),
        (("coordinator.run.relays=http://a.example",), "coordinator.run.relays"),
        ((f"coordinator.run.relays={','.join(f'wss://r{number}.example' for number in range(9))}",), "coordinator.run.relays"),
    ],
)
def test_contradictions_of_a_coordinator(tmp_path: Path, overrides: tuple[str, ...], key: str) -> None:
    assert refused(write(tmp_path, COORDINATOR), overrides).key == key


@pytest.mark.parametrize(
    "line", ["nsec = 'nsec1SECRET'", "secret_key = 'SECRET'", "[engine]\npython = 'nsec1SECRET'", "[join]\nrun = 'NSEC1SECRET'"]
)
def test_secrets_are_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    assert "SECRET" not in str(refused(write(tmp_path, WORKER + line)))


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    error = refused(write(tmp_path, WORKER), ("relays=ws://user:SECRET@relay.example",))
    assert error.key == "relays"
    assert "SECRET" not in str(error)


def test_long_values_are_shortened(tmp_path: Path) -> None:
    assert "…" in str(refused(write(tmp_path, WORKER + f"[engine]\nthreads = '{'x' * 10_000}'")))


def test_the_only_validators_can_be_named(tmp_path: Path) -> None:
    text = COORDINATOR.replace("min_validators = 3", f'min_validators = 3\nvalidators = ["{"ab" * 32}"]')
    config = load_config(write(tmp_path, text))
    assert config.coordinator is not None
    assert config.coordinator.run.validators == ("ab" * 32,)
    with pytest.raises(ConfigError, match="validators"):
        load_config(write(tmp_path, text.replace("ab" * 32, "npub1")))


NPUB, HEX = (
    "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6",
    "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d",
)


def test_public_keys_may_be_npubs(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, COORDINATOR), [f"coordinator.run.validators={NPUB},{'ab' * 32}", f"join.coordinator={NPUB}"])
    assert config.join.coordinator == HEX
    assert config.coordinator is not None
    assert config.coordinator.run.validators == (HEX, "ab" * 32)


@pytest.mark.parametrize("key", ["join.coordinator", "coordinator.run.validators"])
def test_a_mistyped_npub_is_named(tmp_path: Path, key: str) -> None:
    error = refused(write(tmp_path, COORDINATOR), (f"{key}={NPUB[:-1]}q",))
    assert error.key == key
    assert "checksum" in error.reason


ADDRESS = RunAddress(EventId("ab" * 32), Pubkey(HEX), ("wss://relay.example",))


def test_a_run_may_be_named_by_its_nevent(tmp_path: Path) -> None:
    assert joined_run(load_config(write(tmp_path, WORKER), ["join.run=any"])) is None
    assert joined_run(load_config(write(tmp_path, WORKER), [f"join.run={ADDRESS.run}"])) == RunAddress(ADDRESS.run)
    assert joined_run(load_config(write(tmp_path, WORKER), [f"join.run={nevent(ADDRESS)}"])) == ADDRESS
    with_coordinator = [f"join.run={ADDRESS.run}", f"join.coordinator={NPUB}"]
    assert joined_run(load_config(write(tmp_path, WORKER), with_coordinator)) == RunAddress(ADDRESS.run, ADDRESS.coordinator)


def test_an_nevent_and_a_coordinator_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    overrides = (f"join.run={nevent(ADDRESS)}", f"join.coordinator={'cd' * 32}")
    assert refused(write(tmp_path, WORKER), overrides).key == "join.coordinator"
    assert load_config(write(tmp_path, WORKER), [f"join.run={nevent(ADDRESS)}", f"join.coordinator={NPUB}"]).join.coordinator == HEX

"""DLC TLVs: the public vectors, round trips, and what hostile bytes cannot do."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.crypto import schnorr
from nostrain.crypto.oracle import outcome_message
from nostrain.crypto.points import base_multiply, encode_point
from nostrain.errors import RemoteProtocolError
from nostrain.hashes import tagged_hash
from nostrain.units import Pubkey, UnixTime
from nostrain.wire import dlc, tlv
from nostrain.wire.dlc import Announcement, Attestation, Convention, DigitDescriptor, EnumDescriptor, OracleEvent

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dlc_l402.json").read_text())
CONVENTIONS = {"tagged(tlv)": Convention.TAGGED, "plain_sha256(body)": Convention.PLAIN_SHA256}
KEY = sha256(b"oracle").digest()
PUBKEY = Pubkey(schnorr.public_key(KEY).hex())
NONCES = tuple(range(1000, 1064))


def nonce_points(count: int) -> tuple[str, ...]:
    return tuple(encode_point(base_multiply(k))[1:].hex() for k in NONCES[:count])


def announcement(event: OracleEvent) -> Announcement:
    return Announcement(schnorr.sign(KEY, dlc.announcement_message(event)).hex(), PUBKEY, event)


def thermometer(digits: int = 4, event_id: str = "nostrain/1/x/y/0") -> Announcement:
    return announcement(OracleEvent(nonce_points(digits), UnixTime(1_700_000_000), DigitDescriptor(digits), event_id))


def attestation(
    outcomes: tuple[str, ...] = ("1", "1", "0", "0"), event_id: str | None = "nostrain/1/x/y/0", key: bytes = KEY
) -> Attestation:
    signatures = (schnorr.sign_with_nonce(key, k, outcome_message(o)).hex() for k, o in zip(NONCES, outcomes, strict=False))
    return Attestation(event_id, Pubkey(schnorr.public_key(key).hex()), tuple(signatures), outcomes)


@pytest.mark.parametrize("vector", VECTORS["announcements"], ids=lambda v: v["name"])
def test_announcement_vectors(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    read = dlc.parse_announcement_untrusted(data)
    form, stated = read.event.descriptor, vector["descriptor"]
    assert [read.convention] == [CONVENTIONS[name] for name in vector["convention"]]
    assert read.pubkey == vector["pubkey"]
    assert list(read.event.nonces) == vector["nonces"]
    assert (read.event.maturity, read.event.event_id) == (vector["maturity"], vector["event_id"])
    if stated["type"] == dlc.ENUM:
        assert form == EnumDescriptor(tuple(stated["outcomes"]))
    else:
        assert form == DigitDescriptor(
            stated["nb_digits"], stated["base_if_u16"], bool(stated["is_signed"]), stated["unit"], stated["precision"]
        )
    assert dlc.encode_announcement(read) == data
    assert not read.is_thermometer


@pytest.mark.parametrize("vector", VECTORS["attestations"], ids=lambda v: v["name"])
def test_attestation_vectors(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["hex"])
    read = dlc.parse_attestation_untrusted(data)
    assert [read.convention] == [{"tagged": Convention.TAGGED, "plain": Convention.PLAIN_SHA256}[name] for name in vector["verifies"]]
    assert read.event_id == vector["event_id"]
    assert read.pubkey == vector["pubkey"]
    assert list(read.outcomes) == vector["outcomes"]
    assert dlc.encode_attestation(read) == data


def test_the_plain_convention_releases_nothing() -> None:
    """The vectors' own pair of announcement and attestation matches in key, nonces and digits, and is refused for its convention."""
    promised = dlc.parse_announcement_untrusted(bytes.fromhex(VECTORS["announcements"][1]["hex"]))
    kept = dlc.parse_attestation_untrusted(bytes.fromhex(VECTORS["attestations"][1]["hex"]))
    assert (promised.pubkey, promised.event.nonces) == (kept.pubkey, kept.nonces)
    with pytest.raises(RemoteProtocolError, match="releases nothing"):
        dlc.verify_attestation(promised, kept)
    named = msgspec.structs.replace(promised, convention=Convention.TAGGED)
    with pytest.raises(RemoteProtocolError, match="releases nothing"):
        dlc.verify_attestation(named, kept)


@settings(max_examples=30)
@given(
    st.integers(1, 64),
    st.integers(0, 2**32 - 1),
    st.integers(2, 65535),
    st.text(max_size=60),
    st.text(max_size=60),
    st.integers(-(2**31), 2**31 - 1),
)
def test_digit_announcements_round_trip(digits: int, maturity: int, base: int, unit: str, event_id: str, precision: int) -> None:
    form = DigitDescriptor(digits, base, False, unit, precision)
    made = announcement(OracleEvent(nonce_points(digits), UnixTime(maturity), form, event_id))
    read = dlc.parse_announcement_untrusted(dlc.encode_announcement(made))
    assert read == made
    assert read.is_thermometer == (base == 2)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=8, unique=True))
def test_enum_announcements_round_trip(outcomes: list[str]) -> None:
    made = announcement(OracleEvent(nonce_points(1), UnixTime(1), EnumDescriptor(tuple(outcomes)), "e"))
    assert dlc.parse_announcement_untrusted(dlc.encode_announcement(made)) == made
    assert not made.is_thermometer


def test_signed_numbers_have_one_more_nonce() -> None:
    made = announcement(OracleEvent(nonce_points(5), UnixTime(1), DigitDescriptor(4, signed=True), "e"))
    assert dlc.parse_announcement_untrusted(dlc.encode_announcement(made)) == made
    assert not made.is_thermometer


@given(st.lists(st.sampled_from(["0", "1"]), min_size=1, max_size=8).map(tuple), st.text(max_size=40))
def test_attestations_round_trip_and_give_their_digits(outcomes: tuple[str, ...], event_id: str) -> None:
    made = attestation(outcomes, event_id)
    read = dlc.parse_attestation_untrusted(dlc.encode_attestation(made))
    assert read == made
    assert dlc.verify_attestation(thermometer(len(outcomes), event_id), read) == tuple(int(o) for o in outcomes)
    assert [r + s for r, s in zip(read.nonces, read.scalars, strict=True)] == list(made.signatures)


def test_the_layout_without_event_id_round_trips_and_releases_nothing() -> None:
    made = attestation(event_id=None)
    read = dlc.parse_attestation_untrusted(dlc.encode_attestation(made))
    assert read == made
    with pytest.raises(RemoteProtocolError, match="releases nothing"):
        dlc.verify_attestation(thermometer(), read)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (attestation(event_id="another"), "another event"),
        (attestation(key=sha256(b"mallory").digest()), "signed by"),
        (attestation(("1", "1", "0")), "other nonces"),
        (attestation(("1", "1", "0", "0", "0")), "other nonces"),
        (attestation(("1", "1", "0", "2")), "not a binary digit"),
        (msgspec.structs.replace(attestation(), outcomes=("1", "1", "1", "0")), "signature is not valid"),
        (msgspec.structs.replace(attestation(), outcomes=("1", "1", "0")), "signature is not valid"),
        (msgspec.structs.replace(attestation(), convention=Convention.PLAIN_SHA256), "releases nothing"),
    ],
    ids=["event", "key", "fewer", "more", "digit", "outcome", "count", "convention"],
)
def test_attestations_that_do_not_fulfil_the_announcement(found: Attestation, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as caught:
        dlc.verify_attestation(thermometer(), found)
    assert caught.value.whose == PUBKEY


def test_an_attestation_of_one_false_signature_is_refused() -> None:
    made = attestation()
    swapped = msgspec.structs.replace(made, signatures=(made.signatures[0], *made.signatures[:3]))
    with pytest.raises(RemoteProtocolError, match="a signature is not valid"):
        dlc.parse_attestation_untrusted(dlc.encode_attestation(swapped))


def hostile_announcements() -> dict[str, bytes]:
    good = thermometer()
    event, encoded = good.event, dlc.encode_announcement(thermometer())
    change = msgspec.structs.replace

    def signed(**changes: Any) -> bytes:
        return dlc.encode_announcement(announcement(change(event, **changes)))

    return {
        "empty": b"",
        "trailing byte": encoded + b"\0",
        "cut off": encoded[:-1],
        "another type": tlv.tlv(dlc.ATTESTATION, encoded[6:]),
        "too large": encoded + bytes(dlc.MAX_TLV_BYTES),
        "promises 10 GB": bytes.fromhex("fdd824ff0000000280000000"),
        "another key": dlc.encode_announcement(change(good, pubkey=event.nonces[0])),
        "no point as key": dlc.encode_announcement(change(good, pubkey="ff" * 32)),
        "another event": dlc.encode_announcement(change(good, event=change(event, event_id="other"))),
        "nonce twice": signed(nonces=(event.nonces[0],) * 4),
        "nonce off the curve": signed(nonces=(*event.nonces[:3], "ff" * 32)),
        "nonce missing": signed(nonces=event.nonces[:3]),
        "no nonces": signed(nonces=(), descriptor=DigitDescriptor(0)),
        "65 digits": signed(nonces=(*nonce_points(64), "ff" * 32), descriptor=DigitDescriptor(65)),
        "base 1": signed(descriptor=DigitDescriptor(4, base=1)),
        "long id": signed(event_id="x" * 257),
        "long unit": signed(descriptor=DigitDescriptor(4, unit="x" * 257)),
        "enum of nothing": signed(nonces=event.nonces[:1], descriptor=EnumDescriptor(())),
        "enum with a repetition": signed(nonces=event.nonces[:1], descriptor=EnumDescriptor(("a", "a"))),
        "enum with two nonces": signed(nonces=event.nonces[:2], descriptor=EnumDescriptor(("a", "b"))),
        "enum too long": signed(nonces=event.nonces[:1], descriptor=EnumDescriptor(tuple(map(str, range(65))))),
        "descriptor unknown": tlv.tlv(dlc.ANNOUNCEMENT, bytes(96) + dlc.encode_event(event).replace(b"\xfd\xd8\x0a", b"\xfd\xd8\x0b")),
    }


@pytest.mark.parametrize("name", hostile_announcements())
def test_hostile_announcements_are_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match="oracle announcement"):
        dlc.parse_announcement_untrusted(hostile_announcements()[name])


def test_sign_flags_other_than_0_and_1_are_refused() -> None:
    """Signed as it stands, so nothing but the flag is wrong."""
    event_tlv = dlc.encode_event(thermometer().event).replace(b"\xfd\xd8\x0a\x0a\x00\x02\x00", b"\xfd\xd8\x0a\x0a\x00\x02\x02")
    signature = schnorr.sign(KEY, tagged_hash("DLC/oracle/announcement/v0", event_tlv))
    with pytest.raises(RemoteProtocolError, match="sign flag 2"):
        dlc.parse_announcement_untrusted(tlv.tlv(dlc.ANNOUNCEMENT, signature + bytes.fromhex(PUBKEY) + event_tlv))


ANNOUNCEMENTS = [dlc.encode_announcement(thermometer()), *(bytes.fromhex(v["hex"]) for v in VECTORS["announcements"])]
ATTESTATIONS = [dlc.encode_attestation(attestation()), *(bytes.fromhex(v["hex"]) for v in VECTORS["attestations"])]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Flipped, cut, inserted, repeated or overwritten by lengths that promise too much."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.randint(1, 40)]
            case 2:
                out[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                out[at:at] = out[at : at + 64]
            case _:
                out[at : at + 3] = rng.choice([b"\xff\xff\xff", b"\xfd\xff\xff", b"\xfe\x7f\xff", b"\0\0\0"])
    return bytes(out)


@settings(max_examples=250)
@given(st.randoms(use_true_random=False))
def test_mutated_announcements_raise_only_remote_errors(rng: random.Random) -> None:
    """Whatever is changed breaks the signature, so nothing mutated is ever read."""
    original = rng.choice(ANNOUNCEMENTS)
    data = mutated(original, rng)
    if data == original:
        return
    with pytest.raises(RemoteProtocolError) as caught:
        dlc.parse_announcement_untrusted(data)
    assert "\n" not in str(caught.value)


@settings(max_examples=250)
@given(st.randoms(use_true_random=False))
def test_mutated_attestations_raise_only_remote_errors(rng: random.Random) -> None:
    """The event id is not signed: a mutation there is read, as another event's attestation, and fulfils nothing."""
    original = rng.choice(ATTESTATIONS)
    data = mutated(original, rng)
    try:
        read = dlc.parse_attestation_untrusted(data)
    except RemoteProtocolError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert dlc.encode_attestation(read) == data
    if data != original:
        with pytest.raises(RemoteProtocolError):
            dlc.verify_attestation(thermometer(), read)


@given(st.binary(max_size=400))
def test_noise_raises_only_remote_errors(data: bytes) -> None:
    for parse in (dlc.parse_announcement_untrusted, dlc.parse_attestation_untrusted):
        with pytest.raises(RemoteProtocolError):
            parse(data)

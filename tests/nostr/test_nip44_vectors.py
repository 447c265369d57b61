"""NIP-44's own vectors against the functions of nostr-sdk that carry our mail.

nostr-sdk encrypts and decrypts between two keys and shows nothing of what lies between. Decryption is therefore tried on the vectors' payloads;
conversation keys, message keys, nonces and paddings are told to an implementation of the NIP's text (`nip44_reference`), which has to give the
vectors' values, and what that seals with them nostr-sdk has to open, or refuse.

The file in `tests/vectors` has every category, most of them whole. `NOSTRAIN_TEST_NIP44_VECTORS` names the file that the NIP names, for all of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import nostr_sdk
import pytest

from nostrain.keys.mailbox import MAX_WRAPPED_BYTES

from .nip44_reference import conversation_key, message_keys, padded, padded_length, seal

PART: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "nip44.json").read_text())
WHOLE = "NOSTRAIN_TEST_NIP44_VECTORS"
LONGEST = 65_408
"""Bytes that nostr-sdk 0.45 seals: NIP-44 has 65,535, and our mail 28,672."""
ONE, TWO = "01".zfill(64), "02".zfill(64)
NONCE = bytes(range(32))


def public_of(secret: str) -> str:
    """The x coordinate of the secret's point."""
    return str(nostr_sdk.Keys(nostr_sdk.SecretKey.parse(secret)).public_key().to_hex())


def opened(secret: str, public: str, payload: str) -> str:
    """As our mail opens it."""
    return str(nostr_sdk.nip44_decrypt(nostr_sdk.SecretKey.parse(secret), nostr_sdk.PublicKey.parse(public), payload))


def sealed(plaintext: str) -> str:
    """As our mail seals it."""
    public = nostr_sdk.PublicKey.parse(public_of(TWO))
    return str(nostr_sdk.nip44_encrypt(nostr_sdk.SecretKey.parse(ONE), public, plaintext, nostr_sdk.Nip44Version.V2))


def ours() -> bytes:
    """The conversation key of two keys that we know, for what the vectors give without theirs."""
    return conversation_key(ONE, public_of(TWO))


def check_conversation_key(case: dict[str, str]) -> None:
    key = conversation_key(case["sec1"], case["pub2"])
    assert key.hex() == case["conversation_key"]
    assert opened(case["sec1"], case["pub2"], seal(key, NONCE, padded(b"said"))) == "said"


def check_message_keys(key: bytes, case: dict[str, str]) -> None:
    assert [part.hex() for part in message_keys(key, bytes.fromhex(case["nonce"]))] == [
        case["chacha_key"],
        case["chacha_nonce"],
        case["hmac_key"],
    ]
    assert opened(ONE, public_of(TWO), seal(ours(), bytes.fromhex(case["nonce"]), padded(b"said"))) == "said"


def check_padding(length: int, padded_to: int) -> None:
    assert padded_length(length) == padded_to
    if length < 1 << 16:
        assert len(base64.b64decode(sealed("x" * length))) == 1 + 32 + 2 + padded_to + 32


def check_message(case: dict[str, str]) -> None:
    key, nonce = bytes.fromhex(case["conversation_key"]), bytes.fromhex(case["nonce"])
    assert conversation_key(case["sec1"], public_of(case["sec2"])) == key
    assert seal(key, nonce, padded(case["plaintext"].encode())) == case["payload"]
    for mine, theirs in ((case["sec1"], case["sec2"]), (case["sec2"], case["sec1"])):
        assert opened(mine, public_of(theirs), case["payload"]) == case["plaintext"]


def check_long_message(case: dict[str, Any]) -> None:
    text, nonce = case["pattern"] * case["repeat"], bytes.fromhex(case["nonce"])
    payload = seal(bytes.fromhex(case["conversation_key"]), nonce, padded(text.encode()))
    assert hashlib.sha256(text.encode()).hexdigest() == case["plaintext_sha256"]
    assert hashlib.sha256(payload.encode()).hexdigest() == case["payload_sha256"]
    assert opened(ONE, public_of(TWO), seal(ours(), nonce, padded(text.encode()))) == text


def check_refused_length(length: int) -> None:
    with pytest.raises(nostr_sdk.NostrSdkError):
        sealed("x" * length)


def check_refused_keys(case: dict[str, str]) -> None:
    with pytest.raises(nostr_sdk.NostrSdkError):
        opened(case["sec1"], case["pub2"], seal(ours(), NONCE, padded(b"said")))


def check_refused_payload(case: dict[str, str]) -> None:
    with pytest.raises(nostr_sdk.NostrSdkError):
        opened(ONE, public_of(TWO), case["payload"])
    if "padding" in case["note"]:  # under the vector's own key it is a wrong padding, under ours a wrong MAC: the same padding under ours
        with pytest.raises(nostr_sdk.NostrSdkError):
            opened(ONE, public_of(TWO), seal(ours(), NONCE, _content(case)))
        assert seal(bytes.fromhex(case["conversation_key"]), bytes.fromhex(case["nonce"]), _content(case)) == case["payload"]


def _content(case: dict[str, str]) -> bytes:
    """What the payload was sealed from, wrong padding and all: the cipher is its own inverse."""
    data = base64.b64decode(case["payload"])
    sealed_again = seal(bytes.fromhex(case["conversation_key"]), data[1:33], data[33:-32])
    return base64.b64decode(sealed_again)[33:-32]


def checks(vectors: dict[str, Any]) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every vector, by its category and number."""
    valid, invalid = vectors["valid"], vectors["invalid"]
    key = bytes.fromhex(valid["get_message_keys"]["conversation_key"])
    for name, check, cases in (
        ("get_conversation_key", check_conversation_key, valid["get_conversation_key"]),
        ("get_message_keys", partial(check_message_keys, key), valid["get_message_keys"]["keys"]),
        ("calc_padded_len", lambda pair: check_padding(*pair), valid["calc_padded_len"]),
        ("encrypt_decrypt", check_message, valid["encrypt_decrypt"]),
        ("encrypt_decrypt_long_msg", check_long_message, valid["encrypt_decrypt_long_msg"]),
        ("encrypt_msg_lengths", check_refused_length, invalid["encrypt_msg_lengths"]),
        ("invalid get_conversation_key", check_refused_keys, invalid["get_conversation_key"]),
        ("decrypt", check_refused_payload, invalid["decrypt"]),
    ):
        assert cases, name
        for number, case in enumerate(cases):
            yield f"{name} {number}", partial(check, case)


@pytest.mark.parametrize("check", [pytest.param(check, id=name) for name, check in checks(PART["v2"])])
def test_vector(check: Callable[[], None]) -> None:
    check()


def test_nostr_sdk_seals_far_more_than_our_mail_needs() -> None:
    assert LONGEST > 2 * MAX_WRAPPED_BYTES
    assert opened(TWO, public_of(ONE), sealed("x" * LONGEST)) == "x" * LONGEST


def test_the_whole_set() -> None:
    path = os.environ.get(WHOLE)
    if path is None:
        pytest.skip(f"{WHOLE} does not name NIP-44's nip44.vectors.json: {sum(1 for _ in checks(PART['v2']))} of its vectors were tried")
    data = Path(path).read_bytes()
    assert hashlib.sha256(data).hexdigest() == PART["source_sha256"]
    for name, check in checks(json.loads(data)["v2"]):
        try:
            check()
        except BaseException as error:
            error.add_note(name)
            raise

"""BOLT 11: the specification's own examples, valid and not, round trips and mutated text."""

from __future__ import annotations

import random
import re

import msgspec
import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pynostr import bech32

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt11 import Bolt11, encode_bolt11, parse_bolt11_untrusted, parse_unsigned_untrusted, unsigned

KEY = PrivateKey(bytes.fromhex("e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734"))
PAYEE = "03e7156ae33b0a208d0744199163177e909e80176e55d97a2f221ede0f934dd9ad"
HASH = Digest("0001020304050607080900010203040506070809000102030405060708090102")
SECRET = "11" * 32
BASE = Bolt11(
    currency="bc", payment_hash=HASH, payment_secret=SECRET, created_at=UnixTime(1496314658), payee=PAYEE, features=1 << 8 | 1 << 14
)

DONATION = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql"
COFFEE = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh"
NONSENSE = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpu9qrsgqhtjpauu9ur7fw2thcl4y9vfvh4m9wlfyz2gem29g5ghe2aak2pm3ps8fdhtceqsaagty2vph7utlgj48u0ged6a337aewvraedendscp573dxr"
HASHED = "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqs9qrsgq7ea976txfraylvgzuxs8kgcw23ezlrszfnh8r6qtfpr6cxga50aj6txm9rxrydzd06dfeawfk6swupvz4erwnyutnjq7x39ymw6j38gp7ynn44"
PICO = "lnbc9678785340p1pwmna7lpp5gc3xfm08u9qy06djf8dfflhugl6p7lgza6dsjxq454gxhj9t7a0sd8dgfkx7cmtwd68yetpd5s9xar0wfjn5gpc8qhrsdfq24f5ggrxdaezqsnvda3kkum5wfjkzmfqf3jkgem9wgsyuctwdus9xgrcyqcjcgpzgfskx6eqf9hzqnteypzxz7fzypfhg6trddjhygrcyqezcgpzfysywmm5ypxxjemgw3hxjmn8yptk7untd9hxwg3q2d6xjcmtv4ezq7pqxgsxzmnyyqcjqmt0wfjjq6t5v4khxsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygsxqyjw5qcqp2rzjq0gxwkzc8w6323m55m4jyxcjwmy7stt9hwkwe2qxmy8zpsgg7jcuwz87fcqqeuqqqyqqqqlgqqqqn3qq9q9qrsgqrvgkpnmps664wgkp43l22qsgdw4ve24aca4nymnxddlnp8vh9v2sdxlu5ywdxefsfvm0fq3sesf08uf6q9a2ke0hc9j6z6wlxg5z5kqpu2v9wz"
FEATURES = "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyetpdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqqsgq2a25dxl5hrntdtn6zvydt7d66hyzsyhqs4wdynavys42xgl6sgx9c4g7me86a27t07mdtfry458rtjr0v92cnmswpsjscgt2vcse3sgpz3uapa"
IGNORED_FIELDS = "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyetpdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqqsgq2qrqqqfppnqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqppnqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqpp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqhpnqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqhp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqspnqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqsp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqnp5qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqnpkqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqz599y53s3ujmcfjp5xrdap68qxymkqphwsexhmhr8wdz5usdzkzrse33chw6dlp3jhuhge9ley7j2ayx36kawe7kmgg8sv5ugdyusdcqzn8z9x"
METADATA = "lnbc10m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdp9wpshjmt9de6zqmt9w3skgct5vysxjmnnd9jx2mq8q8a04uqsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q2gqqqqqqsgq7hf8he7ecf7n4ffphs6awl9t6676rrclv9ckg3d3ncn7fct63p6s365duk5wrk202cfy3aj5xnnp5gs3vrdvruverwwq7yzhkf5a3xqpd05wjc"
HIGH_S = "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap2r09nt4ndd0unm3z9u5t48y6ucv4r5sg7lk98c77ctvjczkspk5qprc90gx"

COFFEE_BEANS = msgspec.structs.replace(
    BASE, amount_msat=Msat(2_500_000_000), description="coffee beans", features=1 << 8 | 1 << 14 | 1 << 99
)
SAID = {
    DONATION: msgspec.structs.replace(BASE, description="Please consider supporting this project"),
    COFFEE: msgspec.structs.replace(BASE, amount_msat=Msat(250_000_000), description="1 cup coffee", expiry_s=60),
    NONSENSE: msgspec.structs.replace(BASE, amount_msat=Msat(250_000_000), description="ナンセンス 1杯", expiry_s=60),
    HASHED: msgspec.structs.replace(
        BASE, amount_msat=Msat(2_000_000_000), description_hash="3925b6f67e2c340036ed12093dd44e0368df1b6ea26c53dbe4811f58fd5db8c1"
    ),
    FEATURES: COFFEE_BEANS,
    FEATURES.upper(): COFFEE_BEANS,
    IGNORED_FIELDS: COFFEE_BEANS,
    METADATA: msgspec.structs.replace(
        BASE,
        amount_msat=Msat(1_000_000_000),
        description="payment metadata inside",
        metadata="01fafaf0",
        features=1 << 8 | 1 << 14 | 1 << 48,
    ),
    PICO: Bolt11(
        currency="bc",
        amount_msat=Msat(967_878_534),
        created_at=UnixTime(1572468703),
        payment_hash=Digest("462264ede7e14047e9b249da94fefc47f41f7d02ee9b091815a5506bc8abf75f"),
        payment_secret=SECRET,
        expiry_s=604_800,
        min_final_cltv=10,
        description='Blockstream Store: 88.85 USD for Blockstream Ledger Nano S x 1, "Back In My Day" Sticker x 2, '
        '"I Got Lightning Working" Sticker x 2 and 1 more items',
        payee=PAYEE,
    ),
}
REFUSED = {
    "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyetpdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q4psqqqqqqqqqqqqqqqqsgqtqyx5vggfcsll4wu246hz02kp85x4katwsk9639we5n5yngc3yhqkm35jnjw4len8vrnqnf5ejh0mzj9n3vz2px97evektfm2l6wqccp3y7372": r"unknown features \[100\]",
    "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrnt": "checksum",
    "pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrny": "not bech32",
    "LNBC2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrny": "not bech32",
    "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpusp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9qrsgqwgt7mcn5yqw3yx0w94pswkpq6j9uh6xfqqqtsk4tnarugeektd4hg5975x9am52rz4qskukxdmjemg92vvqz8nvmsye63r5ykel43pgz7zq0g2": "signature is not valid",
    "lnbc1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6na6hlh": "too short",
    "lnbc2500x1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpusp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9qrsgqrrzc4cvfue4zp3hggxp47ag7xnrlr8vgcmkjxk3j5jqethnumgkpqp23z9jclu3v0a7e0aruz366e9wqdykw6dxhdzcjjhldxq0w6wgqcnu43j": "currency or amount",
    "lnbc2500000001p1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpusp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9qrsgq0lzc236j96a95uv0m3umg28gclm5lqxtqqwk32uuk4k6673k6n5kfvx3d2h8s295fad45fdhmusm8sjudfhlf6dcsxmfvkeywmjdkxcp99202x": "fraction",
    "lnbc20m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqs9qrsgq7ea976txfraylvgzuxs8kgcw23ezlrszfnh8r6qtfpr6cxga50aj6txm9rxrydzd06dfeawfk6swupvz4erwnyutnjq7x39ymw6j38gp49qdkj": "no s field",
    "lnbc25m1p70xwfzpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaqnp4q0n326hr8v9zprg8gsvezcch06gfaqqhde2aj730yg0durunfhv66sp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9qrsgqsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygsp5cfzp9ugllvk03rltd6hvndxj26ux6gcxc5azyxk060rj9tzghct5zvjlps76gx8wpq5yuu79688k8gnm2c0al6v608s96l0xzrrlqqwnzxmu": "two s fields",
    "": "not bech32",
    "lnbc1" + "q" * 8000: "characters",
}


@pytest.mark.parametrize("text", SAID)
def test_the_specifications_examples_say_what_it_says(text: str) -> None:
    assert parse_bolt11_untrusted(text) == SAID[text]


@pytest.mark.parametrize("text", [DONATION, COFFEE, NONSENSE, HASHED])
def test_writing_gives_the_specifications_bytes(text: str) -> None:
    assert encode_bolt11(SAID[text], KEY.sign_recoverable) == text


def test_a_recovered_key_may_come_from_a_high_s() -> None:
    assert parse_bolt11_untrusted(HIGH_S).payee == "02d0139ce7427d6dfffd26a326c18be754ef1e64672b42694ba5b23ef6e6e7803d"


@pytest.mark.parametrize(("text", "reason"), REFUSED.items())
def test_the_specifications_bad_examples_are_refused(text: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        parse_bolt11_untrusted(text)


AMOUNTS = st.one_of(st.none(), st.integers(1, 2_100_000_000_000_000_000).map(Msat))


@given(
    amount=AMOUNTS,
    created_at=st.integers(1, 2**35 - 1),
    expiry=st.integers(1, 2**32),
    cltv=st.integers(1, 2**31),
    description=st.text(st.characters(exclude_categories=["Cs"]), max_size=100),
    currency=st.sampled_from(["bc", "tb", "tbs", "bcrt"]),
    secret=st.binary(min_size=32, max_size=32),
)
def test_what_is_written_is_read(
    amount: Msat | None, created_at: int, expiry: int, cltv: int, description: str, currency: str, secret: bytes
) -> None:
    said = Bolt11(
        currency=currency,
        payment_hash=HASH,
        payment_secret=secret.hex(),
        created_at=UnixTime(created_at),
        amount_msat=amount,
        description=description,
        expiry_s=expiry,
        min_final_cltv=cltv,
        payee=PAYEE,
    )
    assert parse_bolt11_untrusted(encode_bolt11(said, KEY.sign_recoverable)) == said


@pytest.mark.parametrize(
    ("amount", "prefix"),
    [
        (1, "lnbc10p1"),
        (100, "lnbc1n1"),
        (250_000_000, "lnbc2500u1"),
        (100_000_000_000, "lnbc11"),
        (2_500_000_000, "lnbc25m1"),
        (967_878_534, "lnbc9678785340p1"),
    ],
)
def test_amounts_are_spelled_as_shortly_as_can_be(amount: int, prefix: str) -> None:
    text = encode_bolt11(msgspec.structs.replace(BASE, amount_msat=Msat(amount), description=""), KEY.sign_recoverable)
    assert text.startswith(prefix)
    assert parse_bolt11_untrusted(text).amount_msat == amount


def test_an_unsigned_invoice_is_read_as_such_only() -> None:
    said = msgspec.structs.replace(BASE, amount_msat=Msat(5), description="x", payee="")
    text = encode_bolt11(said, unsigned)
    assert parse_unsigned_untrusted(text) == said
    with pytest.raises(RemoteProtocolError, match="signature"):
        parse_bolt11_untrusted(text)


def test_more_than_there_is_cannot_be_asked_for() -> None:
    text = encode_bolt11(
        msgspec.structs.replace(BASE, amount_msat=Msat(21_000_000 * 10**11 + 10**11), description=""), KEY.sign_recoverable
    )
    with pytest.raises(RemoteProtocolError, match="more than all bitcoin"):
        parse_bolt11_untrusted(text)


@pytest.mark.parametrize(
    "change",
    [
        {"description": None},
        {"description": "x", "description_hash": "00" * 32},
        {"currency": "xx", "description": "x"},
        {"description": "x" * 640},
        {"description": "x", "payment_hash": "00"},
        {"description": "x", "created_at": 2**35},
        {"description": "x", "amount_msat": 0},
    ],
)
def test_what_cannot_be_written_is_our_error(change: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        encode_bolt11(msgspec.structs.replace(BASE, **change), KEY.sign_recoverable)


def test_mutated_text_is_refused_in_one_way_only(rng: random.Random) -> None:
    refused = []
    for _ in range(300):
        text = list(rng.choice(list(SAID)))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text[at] = rng.choice(["", "q", "1", "é", "0", " ", text[at] * 2, "l"])
        try:
            parse_bolt11_untrusted("".join(text))
        except RemoteProtocolError as error:
            refused.append(str(error))
    assert len(refused) > 250
    assert all(re.match(r"bolt11: \S", reason) for reason in refused)


def test_mutated_fields_under_a_right_checksum_are_refused_in_one_way_only(rng: random.Random) -> None:
    refused = []
    for _ in range(300):
        prefix, words, _ = bech32.bech32_decode(rng.choice(list(SAID)))
        for _ in range(rng.randint(1, 3)):
            words[rng.randrange(len(words) - 104)] = rng.randrange(32)
        text = bech32.bech32_encode(prefix, words, bech32.Encoding.BECH32)
        try:
            assert parse_bolt11_untrusted(text).payee != PAYEE or text in SAID
        except RemoteProtocolError as error:
            refused.append(str(error))
    assert all(re.match(r"bolt11: \S", reason) for reason in refused)
    assert refused

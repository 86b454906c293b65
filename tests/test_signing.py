"""
`txsession.signing`.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from txsession import ConfigurationError
from txsession.cookies import pair, readCookies
from txsession.signing import Fingerprint, Signer, Verified, fingerprint, generateID

SECRET = "keyboard cat"
SIGNER = Signer(SECRET)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
sids = st.text(min_size=1, max_size=60)

NODE = [
    ("apple", "s%3Aapple.D8Y%2BpkTAmeR0PobOhY4G97PRW%2Bj7bUnP%2F5m6%2FOn1MCU"),
    ("%", "s%3A%25.kzQ6x52kKVdF35Qh62AWk4ZekS28K5XYCXKa%2FOTZ01g"),
    ("/foo", "s%3A%2Ffoo.paEKBtAHbV5s1IB8B2zPnzAgYmmnRPIqObW4VRYj%2FMQ"),
]
"""
What cookie-signature and encodeURIComponent make of an ID with that secret.
"""


def signatureOf(raw: bytes, secret: bytes = b"keyboard cat") -> bytes:
    return b64encode(hmac.new(secret, raw, sha256).digest()).rstrip(b"=")


# The format.


@pytest.mark.parametrize(("sid", "value"), NODE)
def test_signsAsNodeDoes(sid: str, value: str) -> None:
    """
    A signed ID is, in the cookie, what an Express application would write.
    """
    assert pair("connect.sid", SIGNER.sign(sid)) == f"connect.sid={value}"


@pytest.mark.parametrize(("sid", "value"), NODE)
def test_readsWhatNodeSigned(sid: str, value: str) -> None:
    """
    A cookie that an Express application signed is accepted.
    """
    (signed,) = readCookies([b"connect.sid=" + value.encode()], b"connect.sid")
    assert SIGNER.verify(signed) == Verified(sid, stale=False)


@unhurried
@given(sids)
def test_signsWithHMACOverUTF8(sid: str) -> None:
    """
    The signature is the unpadded base64 of the HMAC-SHA256 of the ID's UTF-8.
    """
    raw = sid.encode()
    assert SIGNER.sign(sid) == b"s:" + raw + b"." + signatureOf(raw)


@unhurried
@given(sids, st.binary(min_size=1, max_size=80))
def test_verifiesWhatItSigned(sid: str, secret: bytes) -> None:
    """
    Every ID comes back from its signed form, under any secret.
    """
    signer = Signer(secret)
    assert signer.verify(signer.sign(sid)) == Verified(sid, stale=False)


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), [SECRET], (SECRET, "x")])
def test_takesASecretInEveryForm(secret: Any) -> None:
    """
    A secret may be str, bytes or the first of a sequence; it signs alike.
    """
    assert Signer(secret).sign("apple") == SIGNER.sign("apple")


# Forgery.


def test_rejectsEverySingleChangedByte() -> None:
    """
    Whichever byte of a signed value is replaced by whichever other byte, it is
    no longer accepted.
    """
    signed = SIGNER.sign("apple")
    for index in range(len(signed)):
        for byte in {*range(256)} - {signed[index]}:
            forged = signed[:index] + bytes([byte]) + signed[index + 1 :]
            assert SIGNER.verify(forged) is None, forged


@unhurried
@given(sids, st.data())
def test_rejectsEverySingleFlippedBit(sid: str, data: st.DataObject) -> None:
    """
    One flipped bit anywhere in the signed form of any ID makes it worthless.
    """
    signed = bytearray(SIGNER.sign(sid))
    signed[data.draw(st.integers(0, len(signed) - 1))] ^= 1 << data.draw(
        st.integers(0, 7)
    )
    assert SIGNER.verify(bytes(signed)) is None


@unhurried
@given(sids, st.data())
def test_rejectsEveryShorterOrLongerValue(sid: str, data: st.DataObject) -> None:
    """
    A signed value with bytes missing or added is not accepted.
    """
    signed = SIGNER.sign(sid)
    cut = data.draw(st.integers(0, len(signed) - 1))
    more = data.draw(st.binary(min_size=1, max_size=9))
    assert SIGNER.verify(signed[:cut]) is None
    assert SIGNER.verify(signed + more) is None
    assert SIGNER.verify(signed[:cut] + signed[cut + 1 :]) is None


def test_noChangedByteInTheHeaderGivesAnotherID() -> None:
    """
    Of a cookie whose one byte was changed on its way, what is still accepted is
    the same ID in another spelling of its percent encoding.
    """
    value = NODE[0][1].encode()
    original = unquote_to_bytes(value)
    accepted = set()
    for index in range(len(value)):
        for byte in {*range(256)} - {value[index]}:
            changed = value[:index] + bytes([byte]) + value[index + 1 :]
            for each in readCookies([b"sid=" + changed], b"sid"):
                if SIGNER.verify(each) is not None:
                    assert each == original
                    accepted.add(changed)
    assert accepted
    assert {each.lower() for each in accepted} == {value.lower()}


@unhurried
@given(st.binary(max_size=120))
def test_makesNothingOfArbitraryBytes(value: bytes) -> None:
    """
    Bytes that were not signed give no ID, and no exception.
    """
    assert SIGNER.verify(value) is None
    assert SIGNER.verify(b"s:" + value) is None
    assert SIGNER.verify(b"s:apple." + value) is None


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"s:",
        b"s:.",
        b"s:apple",
        b"s:apple.",
        b"s:." + signatureOf(b""),
        b"apple." + signatureOf(b"apple"),
        b"S:apple." + signatureOf(b"apple"),
        b"j:apple." + signatureOf(b"apple"),
        b" s:apple." + signatureOf(b"apple"),
        b"s:apple." + signatureOf(b"apple") + b"=",
        b"s:apple." + signatureOf(b"s:apple"),
        b"s:apple." + signatureOf(b"apple", b"keyboard dog"),
        b"s:apple." + signatureOf(b"apple").lower(),
        b"s:apple." + hmac.new(b"keyboard cat", b"apple", sha256).digest(),
    ],
)
def test_rejectsWhatIsMalformed(value: bytes) -> None:
    """
    A value that is not prefix, ID, dot and signature counts as not sent.
    """
    assert SIGNER.verify(value) is None


def test_rejectsAnIDThatIsNotText() -> None:
    """
    Even properly signed, bytes that are not UTF-8 are no ID.
    """
    assert SIGNER.verify(b"s:\xff." + signatureOf(b"\xff")) is None


def test_refusesToSignWhatHasNoUTF8() -> None:
    """
    An ID that UTF-8 cannot encode is not signed.
    """
    with pytest.raises(UnicodeEncodeError):
        SIGNER.sign("\ud800")


# Rotation.


@pytest.mark.parametrize(
    ("signedWith", "expected"),
    [
        ("new", Verified("apple", stale=False)),
        ("old", Verified("apple", stale=True)),
        ("oldest", Verified("apple", stale=True)),
        ("other", None),
    ],
)
def test_verifiesWithEverySecret(signedWith: str, expected: Verified | None) -> None:
    """
    Every secret of the sequence verifies; all but the first are stale.
    """
    signed = Signer(signedWith).sign("apple")
    assert Signer(["new", b"old", "oldest"]).verify(signed) == expected


def test_signsWithTheFirst() -> None:
    """
    The first secret signs, whatever else verifies.
    """
    assert Signer(["new", "old"]).sign("apple") == Signer("new").sign("apple")


# Configuration.


@pytest.mark.parametrize(
    "secret",
    [
        "",
        b"",
        [],
        (),
        [""],
        ["good", b""],
        None,
        True,
        5,
        [5],
        [None],
        [["nested"]],
        {"a", "set"},
        iter(["one", "two"]),
        bytearray(b"secret"),
        "\ud800",
        ["good", "\udfff"],
    ],
)
def test_refusesAnythingElseAsASecret(secret: Any) -> None:
    """
    What is empty or not text or bytes is refused, by the option's name.
    """
    with pytest.raises(ConfigurationError) as caught:
        Signer(secret)
    assert caught.value.option == "secret"


@pytest.mark.parametrize("secret", ["", []])
def test_saysHowToMakeASecret(secret: Any) -> None:
    """
    Who has no secret is told how to make one.
    """
    with pytest.raises(ConfigurationError, match="token_hex"):
        Signer(secret)


def test_neverShowsASecret() -> None:
    """
    No secret is in the repr, nor in the message about a bad one.
    """
    assert "keyboard" not in repr(Signer([SECRET, "keyboard dog"]))
    with pytest.raises(ConfigurationError) as caught:
        Signer([SECRET, "keyboard \ud800"])
    assert "keyboard" not in str(caught.value)
    assert "keyboard" not in str(caught.value.__cause__)


# IDs.


def test_drawsIDsOf24Bytes() -> None:
    """
    A generated ID is 24 random bytes in base64url, and never the same again.
    """
    drawn = {generateID() for _ in range(1000)}
    assert len(drawn) == 1000
    assert all(re.fullmatch("[A-Za-z0-9_-]{32}", sid) for sid in drawn)


@pytest.mark.parametrize("sid", ["apple", "", "%", "ä\x00\n", "\ud800"])
def test_fingerprintsAreTenHexDigits(sid: str) -> None:
    """
    A fingerprint is the beginning of the ID's SHA-256, for any str.
    """
    expected = sha256(sid.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    assert fingerprint(sid) == expected
    assert re.fullmatch("[0-9a-f]{10}", fingerprint(sid))


def test_fingerprintsTellIDsApart() -> None:
    """
    Different IDs have different fingerprints.
    """
    sids = [generateID() for _ in range(1000)]
    assert len({fingerprint(sid) for sid in sids}) == 1000


def test_nothingThatHoldsAnIDShowsIt() -> None:
    """
    What is made of an ID on the way shows its fingerprint.
    """
    verified = Signer(["new", "old"]).verify(Signer("old").sign("apple"))
    assert verified == ("apple", True)
    assert repr(verified) == f"Verified({fingerprint('apple')}, stale=True)"
    assert f"{Fingerprint('apple')} {Fingerprint('apple')!r}" == (
        f"{fingerprint('apple')} {fingerprint('apple')}"
    )


def test_noSecretAtAllSaysWhereToLook() -> None:
    """
    None is mostly an environment variable that was not set.
    """
    with pytest.raises(ConfigurationError, match="environment variable"):
        Signer(None)  # type: ignore[arg-type]

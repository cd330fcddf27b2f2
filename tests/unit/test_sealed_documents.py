"""Sealed documents: every byte counts, and nothing else than a seal is one."""

import json

import blake3
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backy.domain.sealed import seal, unseal
from strategies import repeatable

DOCUMENT = seal(b'{"a": 1, "b": ["x", null], "c": {"d": "\xc3\xa9"}}')


def test_sealed_document_is_what_the_format_says() -> None:
    """The file is indented JSON whose last member is the BLAKE3 of the file with that one zeroed."""
    digits = "e009077949ee974e1434c0bfec90c66cc93e6ec447d6d4c097d5d04e3a283f33"

    def document(checksum: str) -> bytes:
        return f'{{\n  "a": 1,\n  "checksum": "{checksum}"\n}}\n'.encode()

    assert digits == blake3.blake3(document("0" * 64)).hexdigest()
    assert document(digits) == seal(b'{"a": 1}')


def test_sealed_document_is_json_and_yaml() -> None:
    """Operators and their tools can read it with what they have."""
    content = {"a": 1, "b": ["x", None], "c": {"d": "é"}}

    for found in (json.loads(DOCUMENT), yaml.safe_load(DOCUMENT)):
        assert 64 == len(found.pop("checksum"))
        assert content == found


@repeatable(80)
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
            max_leaves=5,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_seal_round_trips(members: dict[str, object]) -> None:
    """What was sealed comes back with the same members."""
    assert members == msgspec.json.decode(unseal(seal(msgspec.json.encode(members))))


@repeatable(200)
@given(at=st.integers(0, len(DOCUMENT) - 1), mask=st.integers(1, 255))
def test_every_changed_byte_is_found(at: int, mask: int) -> None:
    """White space, members, checksum: no byte can change without being found."""
    content = bytearray(DOCUMENT)
    content[at] ^= mask

    with pytest.raises(ValueError, match="checksum"):
        unseal(bytes(content))


@pytest.mark.parametrize("length", range(len(DOCUMENT)))
def test_every_cut_is_found(length: int) -> None:
    """A document that lost its end, however much of it, is none."""
    with pytest.raises(ValueError, match="does not end in a checksum"):
        unseal(DOCUMENT[:length])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 200,
        b"{}",
        b'{"checksum": "' + b"0" * 64 + b'"}',
        DOCUMENT + b"\n",
        DOCUMENT + DOCUMENT,
        b"\n" + DOCUMENT,
        DOCUMENT.replace(b"\n", b"\r\n"),
        DOCUMENT.strip(),
        DOCUMENT.replace(b"  ", b"\t"),
        DOCUMENT.upper(),
        b"\xef\xbb\xbf" + DOCUMENT,
    ],
)
def test_anything_but_the_very_document_is_refused(content: bytes) -> None:
    """What an editor, a mail program or a careless copy makes of it is found."""
    with pytest.raises(ValueError, match="checksum"):
        unseal(content)


@repeatable(100)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused_with_a_value_error(content: bytes) -> None:
    """Other bytes than a seal's are a ValueError, whatever they are."""
    with pytest.raises(ValueError, match="checksum"):
        unseal(content)

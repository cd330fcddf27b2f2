"""JSON documents that prove themselves: the last member is a checksum over all other bytes.

Used for revision records and the store's format file. The document is indented JSON (so also YAML)
and ends in

      "checksum": "<64 hex digits>"
    }

where the digits are the BLAKE3-256 of the whole file with these digits replaced by zeros. Every
byte counts, white space too, so a flipped bit anywhere is seen.

    >>> unseal(seal(b'{"a": 1}'))
    b'{\\n  "a": 1\\n}'

Limits: the object has at least one member; nothing here knows what the members mean.
"""

import blake3
import msgspec

_MARK = b',\n  "checksum": "'
_END = b'"\n}\n'
_DIGITS = 64


def seal(document: bytes) -> bytes:
    """Indent a JSON object with at least one member and add its checksum."""
    body = msgspec.json.format(document, indent=2).removesuffix(b"\n}")
    return body + _MARK + _checksum(body) + _END


def unseal(content: bytes) -> bytes:
    """The JSON object without its checksum; ValueError where it does not hold."""
    cut = len(content) - len(_END) - _DIGITS - len(_MARK)
    if cut < 2 or not content.endswith(_END) or content[cut : cut + len(_MARK)] != _MARK:
        raise ValueError("it does not end in a checksum")
    body = content[:cut]
    if content[cut + len(_MARK) :] != _checksum(body) + _END:
        raise ValueError("its checksum does not match")
    return body + b"\n}"


def _checksum(body: bytes) -> bytes:
    return blake3.blake3(body + _MARK + b"0" * _DIGITS + _END).hexdigest().encode()

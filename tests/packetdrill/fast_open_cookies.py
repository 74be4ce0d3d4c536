"""Fast Open cookies as Linux makes them (`__tcp_fastopen_cookie_gen_cipher`), for scripts that have
them written down.

A cookie is SipHash-2-4 of the client's and the server's address under a key of 16 bytes. A script
of IPv4 that is run in IPv6 talks about other addresses, so the cookies in it are others, too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_MASK = (1 << 64) - 1

# Four words of a key as `tcp_fastopen_key` has them; bytes as TCP_FASTOPEN_KEY has them; a cookie
# of eight bytes in an option.
_WORDS = re.compile(r"\b([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{8}){3})\b")
_BYTES = re.compile(r'"((?:\\x[0-9a-fA-F]{2}){16})"')
_COOKIE = re.compile(r"\b(FO|FOEXP) ([0-9a-fA-F]{16})\b")


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4 (Aumasson and Bernstein, 2012) under 16 bytes of key."""
    k0, k1 = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def rotated(word: int, by: int) -> int:
        return (word << by | word >> (64 - by)) & _MASK

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0 = (v0 + v1) & _MASK
            v1 = rotated(v1, 13) ^ v0
            v0 = rotated(v0, 32)
            v2 = (v2 + v3) & _MASK
            v3 = rotated(v3, 16) ^ v2
            v0 = (v0 + v3) & _MASK
            v3 = rotated(v3, 21) ^ v0
            v2 = (v2 + v1) & _MASK
            v1 = rotated(v1, 17) ^ v2
            v2 = rotated(v2, 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v3 ^= word
        rounds(2)
        v0 ^= word
    v2 ^= 0xFF
    rounds(4)
    return v0 ^ v1 ^ v2 ^ v3


def cookie(key: bytes, client: str, server: str) -> str:
    """The cookie that a server gives a client, in hexadecimal."""
    addresses = b"".join(ipaddress.ip_address(one).packed for one in (client, server))
    return siphash(key, addresses).to_bytes(8, "little").hex()


def keys(text: str) -> list[bytes]:
    """The keys that a script sets, by `sysctl` or by an option."""
    words = [
        b"".join(int(word, 16).to_bytes(4, "little") for word in match.split("-"))
        for match in _WORDS.findall(text)
    ]
    return words + [bytes.fromhex(match.replace("\\x", "")) for match in _BYTES.findall(text)]


def translate(
    text: str, known: Iterable[bytes], before: tuple[str, str], after: tuple[str, str]
) -> str:
    """The script with each cookie for the addresses `before` (client, server) replaced by the one
    for those `after`, under the keys `known` and those that the script sets. Others stay: they are
    wrong on purpose, or another server's."""
    cookies = {
        cookie(key, *before): cookie(key, *after) for key in dict.fromkeys([*known, *keys(text)])
    }
    return _COOKIE.sub(lambda at: f"{at[1]} {cookies.get(at[2].lower(), at[2])}", text)

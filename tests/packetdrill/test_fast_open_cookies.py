"""Fast Open cookies, against SipHash's own test vector and a kernel's cookies."""

from __future__ import annotations

import types

KEY = "a1a1a1a1-b2b2b2b2-c3c3c3c3-d4d4d4d4"


def test_siphash_is_that_of_its_authors(run: types.ModuleType) -> None:
    key, data = bytes(range(16)), bytes(range(15))
    assert run.fast_open_cookies.siphash(key, data) == 0xA129CA6149BE45E5


def test_cookies_are_what_linux_gives(run: types.ModuleType) -> None:
    cookies = run.fast_open_cookies
    (key,) = cookies.keys(f"net.ipv4.tcp_fastopen_key={KEY}")
    assert cookies.cookie(key, "192.0.2.1", "192.168.0.1") == "3021b9d889017eeb"
    assert cookies.cookie(key, "fd3d:fa7b:d17d::1", "fd3d:a0b:17d6::1") == "c1d1e9742a47a9bc"


def test_keys_are_found_in_both_forms(run: types.ModuleType) -> None:
    escaped = "".join(f"\\x{byte:02x}" for byte in range(16))
    text = f'tcp_fastopen_key={KEY} setsockopt(3, SOL_TCP, TCP_FASTOPEN_KEY, "{escaped}", 16) = 0'
    words, option = run.fast_open_cookies.keys(text)
    assert words == bytes.fromhex("a1a1a1a1b2b2b2b2c3c3c3c3d4d4d4d4")
    assert option == bytes(range(16))


def test_only_cookies_for_these_addresses_are_translated(run: types.ModuleType) -> None:
    cookies = run.fast_open_cookies
    (key,) = cookies.keys(KEY)
    before, after = ("192.0.2.1", "192.168.0.1"), ("2001:db8::1", "2001:db8::2")
    right, wrong = cookies.cookie(key, *before), cookies.cookie(bytes(16), *before)
    text = f"<mss 1460,FO {right},nop,nop> <FOEXP {right.upper()}> <FO {wrong}> 0x{right}"
    new = cookies.cookie(key, *after)
    assert cookies.translate(text, [key], before, after) == (
        f"<mss 1460,FO {new},nop,nop> <FOEXP {new}> <FO {wrong}> 0x{right}"
    )

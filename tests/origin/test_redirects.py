"""Redirects: followed, bounded, and the caller's headers stay at the caller's origin."""

from __future__ import annotations

import pytest

from peerd.errors import OriginProtocolError, OriginRefused
from peerd.origin.routes import Route, first_route, is_refused_address, proxy_for
from peerd.origin.service import OriginReader
from peerd.task import ask_for
from tests.origin.scripted import answer, scripted
from tests.origin.server import QUICK, read_all

SECRETS = [("Authorization", "Bearer s"), ("Cookie", "c"), ("Accept", "text/x"), ("X-Key", "k")]


async def test_headers_follow_to_the_same_origin_and_the_connection_is_used_again() -> None:
    def script(request: object) -> bytes:
        return (
            answer(302, b"see there", location="/b")
            if len(server.requests) == 1
            else answer(200, b"hello")
        )

    async with scripted(script) as server, OriginReader(QUICK) as reader:
        assert await read_all(reader, ask_for(server.url + "/a", headers=SECRETS)) == b"hello"
        assert server.requests[1].target == "/b"
        assert server.requests[1].headers["authorization"] == "Bearer s"
        assert server.requests[1].headers["accept"] == "text/x"
        assert server.connections == 1


async def test_no_header_of_the_caller_reaches_another_port_nor_comes_back() -> None:
    def first(request: object) -> bytes:
        if len(here.requests) == 1:
            return answer(307, location=f"{there.url}/elsewhere")
        return answer(200, b"hello")

    def second(request: object) -> bytes:
        return answer(301, location=f"{here.url}/back")

    async with scripted(first) as here, scripted(second) as there, OriginReader(QUICK) as reader:
        assert await read_all(reader, ask_for(here.url, headers=SECRETS)) == b"hello"
        for request in (there.requests[0], here.requests[1]):
            assert {"authorization", "cookie", "x-key"}.isdisjoint(request.headers)
            assert request.headers["accept"] == "*/*"


async def test_our_own_headers_go_along() -> None:
    def script(request: object) -> bytes:
        if len(server.requests) == 1:
            return answer(302, location="/b")
        return answer(206, b"llo", content_range="bytes 2-4/5")

    async with scripted(script) as server, OriginReader(QUICK) as reader:
        assert await read_all(reader, ask_for(server.url), first_byte=2) == b"llo"
        assert server.requests[1].headers["range"] == "bytes=2-"
        assert server.requests[1].headers["accept-encoding"] == "identity"


async def test_ten_redirects_are_enough() -> None:
    async with scripted(lambda _: answer(302, location="/again")) as server:
        async with OriginReader(QUICK) as reader:
            with pytest.raises(OriginProtocolError, match="more than 10 redirects"):
                await read_all(reader, ask_for(server.url))
        assert len(server.requests) == 11


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "ftp://x/y", "http://["])
async def test_a_redirect_to_what_is_not_read_is_refused(location: str) -> None:
    away = answer(302, location=location)
    async with scripted(lambda _: away) as server, OriginReader(QUICK) as reader:
        with pytest.raises(OriginProtocolError, match="redirects to"):
            await read_all(reader, ask_for(server.url))
        assert len(server.requests) == 1


@pytest.mark.parametrize("place", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
async def test_a_redirect_to_where_clouds_keep_credentials_is_refused(place: str) -> None:
    away = answer(302, location=f"http://{place}/latest")
    async with scripted(lambda _: away) as server, OriginReader(QUICK) as reader:
        with pytest.raises(OriginRefused, match="link-local"):
            await read_all(reader, ask_for(server.url))


@pytest.mark.parametrize(
    ("url", "location", "kept"),
    [
        ("http://a/x", "/y", True),
        ("http://a/x", "http://A:80/y", True),
        ("http://a/x", "//a/y", True),
        ("http://a/x", "http://a:8080/y", False),
        ("http://a/x", "https://a/y", False),
        ("https://a/x", "http://a/y", False),
        ("http://a/x", "http://a.b/y", False),
        ("http://a/x", "http://a@b/y", False),
    ],
)
def test_what_counts_as_the_same_place(url: str, location: str, kept: bool) -> None:
    route = Route(url, (("cookie", "c"),)).redirected(location)
    assert route.headers == ((("cookie", "c"),) if kept else ())


def test_a_signed_url_is_sent_as_it_is() -> None:
    signed = "https://host/a%2Fb/%7e!$&'()*+,;=:@?X-Sig=a%2Bb+c/d==&q[]={x}|y"
    assert first_route(ask_for(signed)).target == signed.removeprefix("https://host")


def test_names_and_paths_beyond_ascii_are_encoded() -> None:
    route = first_route(ask_for("http://bücher.example/straße?ä"))
    assert route.site.host == "xn--bcher-kva.example"
    assert route.target == "/stra%C3%9Fe?%C3%A4"


@pytest.mark.parametrize(
    ("url", "no_proxy", "expected"),
    [
        ("http://a.example/x", "", "http://p:1"),
        ("https://a.example/x", "", "http://s:1"),
        ("http://a.example/x", "a.example", None),
        ("http://a.example/x", " .example , b", None),
        ("http://a.example/x", "*.example", None),
        ("http://bexample/x", "example", "http://p:1"),
        ("http://a.example:81/x", "a.example:80", "http://p:1"),
        ("http://a.example:80/x", "a.example:80", None),
        ("http://10.1.2.3/x", "10.0.0.0/8", None),
        ("http://11.1.2.3/x", "10.0.0.0/8", "http://p:1"),
        ("http://[fd00::1]/x", "fd00::/8", None),
        ("http://a.example/x", "*", None),
        ("http://localhost/x", "", None),
        ("http://127.9.9.9/x", "", None),
        ("http://[::1]/x", "", None),
    ],
)
def test_which_proxy_leads_there(url: str, no_proxy: str, expected: str | None) -> None:
    found = proxy_for(
        Route(url, ()).site, http_proxy="http://p:1", https_proxy="http://s:1", no_proxy=no_proxy
    )
    assert found == expected


def test_addresses_that_are_not_read() -> None:
    assert is_refused_address("fd00:ec2::254")
    assert is_refused_address("100.100.100.200")
    assert not is_refused_address("10.0.0.1")
    assert not is_refused_address("example.com")

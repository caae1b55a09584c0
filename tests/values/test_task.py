"""The name of a task: the same for the same content, different for anything that selects other."""

from __future__ import annotations

import pytest

from peerd.errors import UsageError
from peerd.task import ask_for, canonical_url, is_shared, task_id

DIGEST = "sha256:" + "a" * 64
MINE, THEIRS = b"mine", b"theirs"


def test_a_digest_alone_names_the_content() -> None:
    one = ask_for("http://a/x", digest=DIGEST, tag="t")
    two = ask_for("https://b/y?q=1", digest=DIGEST, headers=[("Authorization", "secret")])
    assert task_id(one, MINE) == task_id(two, THEIRS)


def test_signatures_do_not_name_but_parameters_do() -> None:
    plain = task_id(ask_for("http://a/x?part=1"), MINE)
    signed = "HTTP://A:80/x?part=1&X-Amz-Signature=s&Expires=3#frag"
    assert task_id(ask_for(signed), MINE) == plain
    assert task_id(ask_for("http://a/x?part=2"), MINE) != plain


@pytest.mark.parametrize(
    "other",
    [
        {"tag": "t"},
        {"application": "t"},
        {"headers": [("Accept", "text/plain")]},
        {"headers": [("X-Api-Key", "k")]},
    ],
)
def test_what_selects_other_content_names_another_task(other: dict[str, object]) -> None:
    assert task_id(ask_for("http://a/x", **other), MINE) != task_id(  # type: ignore[arg-type]
        ask_for("http://a/x"), MINE
    )


def test_tag_and_application_do_not_run_into_each_other() -> None:
    one = ask_for("http://a/x", tag="ab", application="c")
    two = ask_for("http://a/x", tag="a", application="bc")
    assert task_id(one, MINE) != task_id(two, MINE)


def test_credentials_without_a_digest_are_shared_with_nobody() -> None:
    ask = ask_for("http://a/x", headers=[("Authorization", "Bearer t")])
    assert not is_shared(ask)
    assert task_id(ask, MINE) != task_id(ask, THEIRS)
    assert not ask.spec.headers, "they stay out of what others are told"


def test_local_files_are_shared_with_nobody_unless_by_digest() -> None:
    assert not is_shared(ask_for("file:///etc/hosts"))
    assert is_shared(ask_for("file:///etc/hosts", digest=DIGEST))


def test_canonical_urls_keep_what_servers_tell_apart() -> None:
    assert canonical_url("http://A/x%2Fy?b=2&a=1&c=") == "http://a/x%2Fy?b=2&a=1&c="
    assert canonical_url("https://h:443") == "https://h/"
    assert canonical_url("http://[::1]:8080/") == "http://[::1]:8080/"


@pytest.mark.parametrize(
    ("url", "headers", "digest", "says"),
    [
        ("ftp://a/x", [], None, "http://, https:// and file://"),
        ("x", [], None, "http://"),
        ("http:///x", [], None, "names no host"),
        ("http://a:99999/", [], None, "no URL"),
        ("http://a/a b", [], None, "encode"),
        ("http://u:p@a/x", [], None, "Authorization"),
        ("http://a/x", [("Range", "bytes=0-1")], None, "leave it out"),
        ("http://a/x", [("K", "a\r\nB: c")], None, "no HTTP header"),
        ("http://a/x", [("K:", "v")], None, "no HTTP header"),
        ("http://a/x", [], "md5:1", "sha256:"),
        ("http://a/x", [], "sha256:" + "A" * 64, "sha256:"),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    url: str, headers: list[tuple[str, str]], digest: str | None, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        ask_for(url, headers=headers, digest=digest)


def test_a_path_without_a_host_never_becomes_a_host() -> None:
    assert canonical_url("file:////evil/x") == "file:///evil/x"
    assert canonical_url(canonical_url("file:////?=&;b=2")) == canonical_url("file:////?=&;b=2")

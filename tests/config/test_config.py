"""Settings: which layer wins, what they default to, and how a wrong one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from peerd.cli.main import join
from peerd.config import Config, Reserve, load
from peerd.config.parsers import PARSERS
from peerd.config.sources import ConfigFile, read_file
from peerd.errors import UsageError

HOME = {"HOME": "/home/ana"}


def loaded(overrides: dict[str, Any] | None = None, *, user_id: int = 1000, **more: Any) -> Config:
    return load(overrides, environment=HOME | more.pop("environment", {}), user_id=user_id, **more)


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "peerd.toml"
    path.write_text(text)
    return str(path)


def test_a_later_layer_wins(tmp_path: Path) -> None:
    file = written(tmp_path, 'zone = "file"\nname = "file"\ncluster = "file"\n')
    config = loaded(
        {"zone": "flag", "name": None},
        file=file,
        environment={"PEERD_ZONE": "env", "PEERD_NAME": "env"},
    )
    assert (config.zone, config.name, config.cluster) == ("flag", "env", "file")
    assert config.log_format == "text"


def test_a_variable_names_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, 'zone = "eu"')
    assert loaded(environment={"PEERD_CONFIG": file}).zone == "eu"


def test_places_default_by_user() -> None:
    root, ana = loaded(user_id=0), loaded()
    assert (root.data_dir, root.socket) == ("/var/lib/peerd", "/run/peerd/peerd.sock")
    assert (ana.data_dir, ana.socket) == (
        "/home/ana/.local/share/peerd",
        "/home/ana/.local/share/peerd/peerd.sock",
    )
    xdg = loaded(environment={"XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/run/user/1000"})
    assert (xdg.data_dir, xdg.socket) == ("/d/peerd", "/run/user/1000/peerd.sock")


def test_it_listens_on_loopback_alone_unless_told_otherwise() -> None:
    assert loaded().listen == ("/ip4/127.0.0.1/tcp/4010",)
    assert loaded().link_listen == "127.0.0.1:4011"
    wide = loaded({"listen": ["/ip6/::/tcp/5000", "/ip4/0.0.0.0/tcp/5000"]})
    assert wide.link_listen == "[::]:5001"


def test_a_daemon_for_one_download_takes_any_free_port() -> None:
    config = loaded({"ephemeral": True})
    assert (config.listen, config.link_listen) == (("/ip4/127.0.0.1/tcp/0",), "127.0.0.1:0")


def test_probes_and_scrapes_have_ports_unless_it_is_for_one_download() -> None:
    usual = loaded()
    assert (usual.metrics_listen, usual.health_listen) == ("127.0.0.1:4002", "127.0.0.1:4003")
    once = loaded({"ephemeral": True})
    assert (once.metrics_listen, once.health_listen) == (None, None)
    said = loaded({"metrics_listen": "off"}, environment={"PEERD_HEALTH_LISTEN": "[::1]:9"})
    assert (said.metrics_listen, said.health_listen) == (None, "[::1]:9")
    with pytest.raises(UsageError, match="--metrics-listen: 'none' has no port"):
        loaded({"metrics_listen": "none"})


def test_all_forms_of_a_value_mean_the_same(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'upload_limit = "10MiB"\nbootstrap = ["a:1", "b:2"]\nseed_peer = true\n'
        'socket_mode = 0o660\nfresh_s = 300\ndisk_reserve = "5%"\n',
    )
    variables = {
        "PEERD_UPLOAD_LIMIT": "10485760",
        "PEERD_BOOTSTRAP": "a:1, b:2",
        "PEERD_SEED_PEER": "yes",
        "PEERD_SOCKET_MODE": "0660",
        "PEERD_FRESH_S": "5m",
        "PEERD_DISK_RESERVE": "5%",
    }
    from_file, from_variables = loaded(file=file), loaded(environment=variables)
    assert from_file == from_variables
    assert from_file.upload_limit == 10 << 20
    assert from_file.socket_mode == 0o660
    assert from_file.disk_reserve.of(1000) == 50
    assert Reserve(size_bytes=70).of(1000) == 70


def test_proxies_and_ca_come_from_the_usual_variables_and_the_section_wins(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    usual = {"HTTPS_PROXY": "proxy:3128", "NO_PROXY": "localhost,.lan", "SSL_CERT_FILE": str(ca)}
    config = loaded(environment=usual)
    assert config.origin.https_proxy == "http://proxy:3128"
    assert config.origin.no_proxy == "localhost,.lan"
    assert config.origin.ca_file == str(ca)
    file = written(tmp_path, '[origin]\nhttps_proxy = "http://other:1"\n')
    assert loaded(environment=usual, file=file).origin.https_proxy == "http://other:1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('\n\nzoen = "eu"\n', "line 3: there is no key 'zoen'; did you mean zone?"),
        ('# zone\nzone = "a//b"\n', "line 2, zone: 'a//b' is no zone"),
        ("name = 5\n", "line 1, name: 5 is not a text"),
        ('listen = [\n  "/ip4/127.0.0.1/tcp/1",\n  "/ip4/x/tcp/1",\n]\n', "line 1, listen"),
        ('cluster = """\nzone = 1"""\nzone = 7', "line 1, cluster"),
        ("[origin]\n\nca_fiel = 1\n", "line 3: there is no key 'origin.ca_fiel'"),
        ('[origin]\nca_file = "/nowhere/ca"\n', "line 2, origin.ca_file: there is no file"),
        ("origin = 1\n", "line 1, origin is a section"),
        ("zone = \n", "is not TOML.*line 1"),
        ("ephemeral = true\n", "no key 'ephemeral'"),
        ("a = " + "[" * 20000, "nested too deeply"),
    ],
)
def test_a_wrong_file_is_named_with_the_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        loaded(file=written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        loaded(file=str(tmp_path / "none.toml"))
    (tmp_path / "bin").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not TOML"):
        read_file(str(tmp_path / "bin"))
    with pytest.raises(UsageError, match="larger"):
        read_file(written(tmp_path, "#" * 300_000))


def test_the_line_of_a_key_is_where_its_statement_begins() -> None:
    text = 'a = [\n 1,\n 2]\n\n# note\nb = """\nzone = 1\n"""\nzone = 2\n[origin]\nno_proxy = "x"'
    file = ConfigFile("f", text, {})
    assert file.line_of("a") == 1
    assert file.line_of("b") == 6
    assert file.line_of("zone") == 9
    assert file.line_of("origin.no_proxy") == 11


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", []),
        ("listen", ["/ip4/127.0.0.1/udp/1"]),
        ("listen", ["/ip4/::1/tcp/1"]),
        ("listen", ["/ip4/127.0.0.1/tcp/65536"]),
        ("listen", ["/dns/host/tcp/1"]),
        ("link_listen", "host.example:1"),
        ("link_listen", "127.0.0.1"),
        ("bootstrap", ["host"]),
        ("bootstrap", ["host:0"]),
        ("bootstrap", ["/dns/-x-/tcp/1"]),
        ("bootstrap", ["/ip4/1.2.3.4/tcp/1/p2p/short"]),
        ("bootstrap", ["/ip4/1.2.3.4/tcp/1/ws"]),
        ("bootstrap", ["x:1"] * 65),
        ("announce", ["::1:5"]),
        ("zone", "a/b/c/d/e"),
        ("name", "two\nlines"),
        ("socket", "x" * 120),
        ("socket_mode", "0460"),
        ("socket_mode", "999"),
        ("socket_mode", True),
        ("upload_limit", "0"),
        ("upload_limit", "fast"),
        ("disk_reserve", "100%"),
        ("disk_reserve", "x%"),
        ("log_level", "loud"),
        ("fresh_s", True),
        ("origin.http_proxy", "socks5://h:1"),
        ("seed_peer", "maybe"),
        ("nothing", 1),
    ],
)
def test_a_wrong_flag_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key.replace("_", ".").replace(".", "[-_.]")):
        loaded({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bootstrap", ["seed.example.org:4010", "[2001:db8::1]:4010"]),
        ("bootstrap", ["/dns4/seed.example.org/tcp/4010/p2p/" + "1" * 46]),
        ("announce", ["/ip6/2001:db8::1/tcp/4010", "192.0.2.1:4011"]),
        ("zone", ""),
        ("zone", "eu/fra-1/r_2.x"),
    ],
)
def test_addresses_stay_as_they_were_typed(key: str, value: Any) -> None:
    kept = getattr(loaded({key: value}), key)
    assert kept == (tuple(value) if isinstance(value, list) else value)


def test_a_misspelt_variable_is_refused_and_a_strangers_is_not() -> None:
    with pytest.raises(UsageError, match="no variable PEERD_ZOEN; did you mean PEERD_ZONE"):
        loaded(environment={"PEERD_ZOEN": "eu"})
    kubernetes = {"PEERD_SERVICE_HOST": "10.0.0.1", "PEERD_PORT": "tcp://10.0.0.1:80"}
    assert loaded(environment=kubernetes | {"PEERD_ZONE": ""}) == loaded()


def test_a_refused_proxy_does_not_show_its_password() -> None:
    with pytest.raises(UsageError) as refusal:
        loaded(environment={"HTTPS_PROXY": "socks5://ana:secret@proxy:1"})
    assert "secret" not in str(refusal.value)


def test_flags_keys_and_fields_are_the_same() -> None:
    fields = {field.name for field in msgspec.structs.fields(Config)} - {"origin"}
    keys = {key for key in PARSERS if not key.startswith("origin.")}
    assert keys == fields
    assert {flag.name for flag in join.params} - {"config"} == fields - {"ephemeral", "linger_s"}

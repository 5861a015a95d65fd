import pytest

from fanout_client.credentials import Credentials, HostPolicy, Route, Server

ALL = Credentials(user="all", password="p")
ONE = Credentials(user="one", password="p")


def urls(route: Route) -> list[str]:
    return [server.url for server in route.servers]


def test_without_credentials_and_hosts_every_server_is_reached() -> None:
    route = HostPolicy(["nats://seed"]).route("C1", ["nats://c1:4222", "ws://c1:80/path"])
    assert urls(route) == ["nats://c1:4222", "ws://c1:80/path"]
    assert route.credentials is None


def test_credentials_go_to_allowed_hosts_by_tls_only() -> None:
    policy = HostPolicy(["tls://seed.plant:4222"], ALL, ["*.plant", "c9.other"])
    route = policy.route(
        "C1",
        ["tls://c1.plant", "nats://c1.plant", "tls://c1.evil", "tls://plant", "tls://c1.plant.evil", "wss://C9.other"],
    )
    assert urls(route) == ["tls://c1.plant:4222", "wss://c9.other:443"]
    assert route.credentials is ALL
    reasons = dict(route.refused)
    assert "tls:// and wss://" in reasons["nats://c1.plant:4222"]
    for host in ("c1.evil", "plant", "c1.plant.evil"):
        assert "allow_hosts" in reasons[f"tls://{host}:4222"]


def test_without_allowed_hosts_credentials_go_where_the_program_says() -> None:
    policy = HostPolicy(["nats://seed:4222"], ALL)
    assert urls(policy.route("C1", ["nats://seed:4222", "nats://seed:4333", "tls://c1:4222"])) == ["nats://seed:4222"]
    assert policy.seed_route().plain == {"nats://seed:4222"}
    assert HostPolicy(["tls://seed:4222"], ALL).route("C1", ["nats://seed:4222"]).servers == ()


def test_hosts_bind_also_without_credentials() -> None:
    route = HostPolicy(["nats://seed"], None, ["c1"]).route("C1", ["nats://c1", "nats://c2", "nats://seed"])
    assert urls(route) == ["nats://c1:4222", "nats://seed:4222"]


def test_credentials_are_chosen_by_the_cluster() -> None:
    policy = HostPolicy(["nats://seed"], {"C1": ONE, "*": ALL})
    assert [policy.credentials(name) for name in ("C1", "C2", "*")] == [ONE, ALL, ALL]
    only = HostPolicy(["nats://seed"], {"C1": ONE})
    assert only.credentials("C2") is None
    assert only.seed_route().credentials is None


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials(user="u", password="secret-1", token="secret-2", nkey_seed="secret-3"))
    assert "secret" not in shown


@pytest.mark.parametrize("url", ["http://c1", "nats://", "nats://user:secret@c1", "nats://c1:x"])
def test_what_is_no_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|scheme|[Pp]ort") as error:
        Server.parse(url)
    assert "secret" not in str(error.value)
    assert HostPolicy(["nats://seed"]).route("C1", [url]).servers == ()


def test_addresses_are_written_in_one_way() -> None:
    assert Server.parse("C1.Plant").url == "nats://c1.plant:4222"
    assert Server.parse("tls://[::1]:5").url == "tls://[::1]:5"

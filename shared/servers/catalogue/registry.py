"""Apicurio Registry, through its Confluent-compatible API."""

from collections.abc import Mapping

from shared.servers.artifacts import read_lock, unpack
from shared.servers.jvm import Jvm
from shared.servers.server import Command, Endpoint, Place, Server
from shared.servers.web import ask


class Registry(Server):
    """One registry on an H2 file; new subjects are checked for BACKWARD compatibility, as Confluent's default is."""

    name = "registry"
    title = "Apicurio Registry (Confluent API)"
    version = "3.3.3"
    ports = {"client": 18081, "management": 18082}
    lock = "registry"

    def url(self, ports: Mapping[str, int]) -> str:
        return f"http://127.0.0.1:{ports['client']}"

    def commands(self, place: Place) -> list[Command]:
        place.data.mkdir(parents=True, exist_ok=True)
        home = unpack(read_lock("registry")[0], place.cache)
        settings = {
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": str(place.ports["client"]),
            "quarkus.management.host": "127.0.0.1",
            "quarkus.management.port": str(place.ports["management"]),
            "quarkus.http.access-log.enabled": "false",
            "apicurio.rules.global.compatibility": "BACKWARD",
            "apicurio.datasource.url": f"jdbc:h2:file:{place.data / 'registry'}",
            "apicurio.datasource.jdbc.initial-size": "2",
            "apicurio.datasource.jdbc.min-size": "2",
            "apicurio.datasource.jdbc.max-size": "10",
            **place.settings,
        }
        jvm = Jvm("registry", place.cache, (home / "quarkus-run.jar",))
        flags = tuple(f"-D{name}={value}" for name, value in settings.items())
        main = ("io.quarkus.bootstrap.runner.QuarkusEntryPoint",)
        return [jvm.command(main, place.folder / "registry.log", flags)]

    def probe(self, endpoint: Endpoint) -> str:
        auth = _auth(endpoint)
        ask(f"{endpoint.url}/apis/ccompat/v7/subjects", auth=auth)
        info = ask(f"{endpoint.url}/apis/registry/v3/system/info", timeout=2, auth=auth)
        return str(info["version"])


def _auth(endpoint: Endpoint) -> tuple[str, str] | None:
    user = endpoint.options.get("username")
    return (user, endpoint.options.get("password", "")) if user else None

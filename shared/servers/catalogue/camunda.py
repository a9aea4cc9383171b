"""Camunda 7, the engine with its REST API, as a Spring Boot application on an H2 file."""

from collections.abc import Mapping

from shared.servers.artifacts import read_lock
from shared.servers.jvm import Jvm
from shared.servers.server import Command, Endpoint, Place, Server
from shared.servers.web import ask
from shared.settings import ROOT

SETTINGS = ROOT / "docker" / "camunda" / "application.yaml"
# An application of Spring Boot is a class that is annotated so that it configures itself. There is none on the class
# path, and no compiler in the runtime: SpringApplication has a `main` of its own, which is told what to configure. In
# this order: some ask what those before them have made.
SPRING = "org.springframework.boot.SpringApplication"
PARTS = (
    "org.springframework.boot.autoconfigure.jdbc.DataSourceAutoConfiguration",
    "org.springframework.boot.autoconfigure.jdbc.DataSourceTransactionManagerAutoConfiguration",
    "org.springframework.boot.autoconfigure.web.servlet.ServletWebServerFactoryAutoConfiguration",
    "org.springframework.boot.autoconfigure.web.embedded.EmbeddedWebServerFactoryCustomizerAutoConfiguration",
    "org.camunda.bpm.spring.boot.starter.CamundaBpmAutoConfiguration",
    "org.camunda.bpm.spring.boot.starter.rest.CamundaBpmRestJerseyAutoConfiguration",
    "org.springframework.boot.autoconfigure.jersey.JerseyAutoConfiguration",
)


class Camunda(Server):
    """One node; process instances survive its restart."""

    name = "camunda"
    title = "Camunda 7"
    version = "7.24.0"
    ports = {"client": 18080}
    lock = "camunda"
    deadline = 180.0

    def url(self, ports: Mapping[str, int]) -> str:
        return f"http://127.0.0.1:{ports['client']}/engine-rest"

    def commands(self, place: Place) -> list[Command]:
        place.data.mkdir(parents=True, exist_ok=True)
        settings = {
            "spring.main.sources": ",".join(PARTS),
            "spring.config.location": SETTINGS.as_uri(),
            "server.address": "127.0.0.1",
            "server.port": str(place.ports["client"]),
            "server.tomcat.basedir": str(place.folder / "tomcat"),
            "lab.data": str(place.data),
            **place.settings,
        }
        full = place.settings.get("lab.jit") == "full"
        jars = tuple(pin.path(place.cache) for pin in read_lock("camunda"))
        jvm = Jvm("camunda", place.cache, jars, "1g" if full else "256m", full)
        words = (f"--{name}={value}" for name, value in settings.items())
        return [jvm.command((SPRING, *words), place.folder / "camunda.log")]

    def probe(self, endpoint: Endpoint) -> str:
        # The list of engines is empty while the only one is still being built.
        if not ask(f"{endpoint.url}/engine"):
            raise RuntimeError("Camunda has no engine yet")
        return str(ask(f"{endpoint.url}/version")["version"])

"""Real servers on demand: one catalogue, two providers (processes, or Docker Compose), or your own."""

from shared.servers.server import Endpoint
from shared.servers.stack import Stack

__all__ = ["Endpoint", "Stack"]

"""What a server says over HTTP."""

from typing import Any


def ask(url: str, timeout: float = 5.0, auth: tuple[str, str] | None = None) -> Any:
    """What GET answers: the value where it is JSON, or else the text. Raises httpx.HTTPError."""
    import httpx  # here, since it takes as long as all else that a script imports, and only a probe needs it

    response = httpx.get(url, timeout=timeout, auth=auth).raise_for_status()
    return response.json() if "json" in response.headers.get("content-type", "") else response.text

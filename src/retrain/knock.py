"""Whether a server answers, asked before a library spends minutes on retries."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from http.client import HTTPException

TIMEOUT_SECONDS = 5


def knock_at_web(address: str) -> None:
    """Wait for an HTTP answer, whatever it says.

    Raises OSError where none comes, and ValueError for what is no address of a web server.
    """
    try:
        urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from error
    except HTTPException as error:  # quotes the address, perhaps a password
        raise ValueError("not an address") from error


def knock_at_port(host: str, port: int) -> None:
    """Open a connection and close it. Raises OSError where nobody listens."""
    socket.create_connection((host, port), TIMEOUT_SECONDS).close()

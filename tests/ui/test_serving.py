"""Where a page is put, and what it answers to those who ask it by themselves."""

from __future__ import annotations

import signal
import socket
from typing import Any

import pytest
import requests
from ui_kit import SECONDS, Puppet

pytest.importorskip("gradio", reason="Gradio is missing: ./scripts/setup --browser")

from icgpt.ui.errors import AddressError
from icgpt.ui.page import build_page
from icgpt.ui.serving import serve, wait


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"port {port}") as caught:
            serve(build_page([Puppet()]), port=port)
    assert "--port" in (caught.value.hint or "")
    with pytest.raises(AddressError, match=r"192\.0\.2\.1"):
        serve(build_page([Puppet()]), "192.0.2.1")


def test_ctrl_c_ends_it_well_from_the_moment_the_address_is_told() -> None:
    page = build_page([Puppet()])
    url = serve(page, port=0)

    def ready() -> None:
        assert requests.get(url, timeout=SECONDS).ok
        signal.raise_signal(signal.SIGINT)

    wait(page, ready)
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=SECONDS)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["puppet", "x" * 20_001, 5, 0.5, None], "more than 20,000 characters"),
        (["puppet", "x", 5, 0.5, 1e300], "Top N must be a number from"),
        (["puppet", "x", 5000, 0.5, None], "5000 is greater than"),
        (["puppet", "x", 5, -1, None], "-1 is less than"),
        (["somebody", "x", 5, 0.5, None], "somebody is not in the list"),
        (["puppet", "x", 5, "much", None], "error"),
        (["puppet"], "error"),
    ],
)
def test_what_makes_no_sense_asks_nobody(
    stage: tuple[str, Puppet], given: list[Any], words: str
) -> None:
    url, puppet = stage
    asked = requests.post(
        f"{url}/gradio_api/call/generate", json={"data": given}, timeout=SECONDS
    ).json()
    told = requests.get(f"{url}/gradio_api/call/generate/{asked['event_id']}", timeout=SECONDS)
    assert words in told.text
    assert "Traceback" not in told.text
    assert puppet.asked == []

"""Where a page is put: addresses that can't be had."""

from __future__ import annotations

import socket

import pytest
from ui_kit import Puppet

pytest.importorskip("gradio", reason="Gradio is missing: ./scripts/setup --browser")

from icgpt.ui.errors import AddressError
from icgpt.ui.page import build_page
from icgpt.ui.serving import serve


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

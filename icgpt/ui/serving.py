"""Puts a page on an address: of this machine alone unless another one is named.

Requests under other names are refused there, so that no web page can reach it under a name of its
own. Nothing is shared, counted or sent anywhere.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from icgpt.transport import LOOPBACK
from icgpt.ui import look
from icgpt.ui.errors import AddressError

if TYPE_CHECKING:
    import gradio

PORT: Final = 7860
_PORTS: Final = 100
_ATTEMPTS: Final = 3
_TICK_SECONDS: Final = 0.2
_MAX_UPLOAD: Final = "1kb"  # the page takes no files, but Gradio has a way in for them


def serve(page: gradio.Blocks, host: str = LOOPBACK[0], port: int | None = None) -> str:
    """Serves a page in the background; its address.

    Args:
        page: from `build_page`.
        host: the address to listen on.
        port: the port; 7860 or the next free one when left out.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    application: dict[str, Any] = {}
    if host in LOOPBACK:
        names = ["localhost", "127.0.0.1", "[::1]"]
        application["middleware"] = [Middleware(TrustedHostMiddleware, allowed_hosts=names)]
    for left in reversed(range(1 if port else _ATTEMPTS)):
        place = _free_port(host, port)
        try:
            page.launch(
                server_name=host,
                server_port=place,
                prevent_thread_lock=True,
                share=False,
                inbrowser=False,
                ssr_mode=False,
                quiet=True,
                footer_links=[],
                max_file_size=_MAX_UPLOAD,
                app_kwargs=application,
                theme=look.theme(),
                css=look.CSS,
            )
            break
        except OSError as error:
            if not left:  # somebody may have been quicker to take a free one
                raise AddressError(f"can't listen on {host}, port {place}: {error}") from error
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{place}"


def wait(page: gradio.Blocks, ready: Callable[[], None]) -> None:
    """Stays as long as a page is served, and closes it; Ctrl-C ends it.

    Args:
        page: one that `serve` has put on an address.
        ready: called first; from then on Ctrl-C is the normal end, so it is what tells the address.
    """
    try:
        ready()
        while page.is_running:
            time.sleep(_TICK_SECONDS)
    except KeyboardInterrupt:
        return
    finally:
        page.close(verbose=False)


def _free_port(host: str, port: int | None) -> int:
    """The port that was asked for, or the first free one; AddressError when there is none."""
    wanted = (port,) if port is not None else range(PORT, PORT + _PORTS)
    error: OSError | None = None
    for number in wanted:
        try:
            family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((host, number))
                return int(listener.getsockname()[1])
        except OSError as found:
            error = found
    words = error.strerror if error is not None else "it is taken"
    raise AddressError(f"can't listen on {host}, port {wanted[0]}: {words}") from error

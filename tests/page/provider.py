"""An identity provider for tests: speaks to the page as Internet Identity does, and signs for real.

The window answers the page's messages (ICRC-29, ICRC-34), and this process signs the delegation
with a key of its own, as whose principal the page then acts.
https://github.com/dfinity/wg-identity-authentication
"""

from __future__ import annotations

import base64
import json
import time
from http.server import BaseHTTPRequestHandler

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from loopback_server import LoopbackServer, Quiet

from icgpt.principal import self_authenticating
from icgpt.request_id import hash_of_map

_DOMAIN = b"\x1aic-request-auth-delegation"
_PAGE = b"""<!doctype html><title>Identity</title><h1>Sign in?</h1><button>Yes</button><script>
let agree;
const agreed = new Promise((resolve) => { agree = resolve; });
document.querySelector("button").onclick = agree;
addEventListener("message", async ({ data, source, origin }) => {
  const answer = (result) => source.postMessage({ jsonrpc: "2.0", id: data.id, result }, origin);
  if (data.method === "icrc29_status") answer("ready");
  if (data.method !== "icrc34_delegation") return;
  await agreed; // said before or after the page has asked
  const body = JSON.stringify(data.params);
  answer(await (await fetch("/delegate", { method: "POST", body })).json());
});
</script>"""


class Provider(LoopbackServer):
    """Where people sign in; everyone is the same `principal`."""

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.principal = self_authenticating(der)

        class Handler(Quiet, BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("text/html", _PAGE)

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                session = base64.b64decode(asked["publicKey"])
                expiration = time.time_ns() + int(asked["maxTimeToLive"])
                digest = hash_of_map({"pubkey": session, "expiration": expiration})
                delegation = {"pubkey": _text(session), "expiration": str(expiration)}
                signed = {"delegation": delegation, "signature": _text(key.sign(_DOMAIN + digest))}
                value = {"publicKey": _text(der), "signerDelegation": [signed]}
                self._answer("application/json", json.dumps(value).encode())

            def _answer(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.serve(Handler)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()

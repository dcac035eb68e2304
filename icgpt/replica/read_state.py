"""Which paths of the certified state a user may read, as the platform checks them.

A request's status belongs to its sender; private metadata to the controllers; everything else
that may be read at all is for everybody.
"""

from __future__ import annotations

from icgpt.principal import MANAGEMENT, MAX_LENGTH, to_text
from icgpt.replica.ingress import Request, RequestError
from icgpt.replica.subnet import Subnet

_CANISTER_FIELDS = (
    *(b"controllers", b"module_hash"),
    *(b"canister_creation_timestamp", b"last_install_timestamp"),
)
_STATUS_FIELDS = (b"status", b"reply", b"reject_code", b"reject_message", b"error_code")


def check_paths(subnet: Subnet, request: Request, effective: bytes) -> None:
    """Raise RequestError unless the sender may read every path by way of this canister's URL."""
    asked: bytes | None = None
    for path in request.paths:
        match path:
            case (b"time",) | (b"subnet", *_) | (b"api_boundary_nodes", *_):
                _check_depth(path)
            case (b"canister_ranges", _) | (b"canister_ranges", _, _):
                continue
            case (b"canister", canister, name) if name in _CANISTER_FIELDS:
                _check_canister(canister, effective)
            case (b"canister", canister, b"metadata", name):
                _check_canister(canister, effective)
                _check_metadata(subnet, request, canister, name)
            case (b"request_status", request_id, *rest):
                if rest and (len(rest) > 1 or rest[0] not in _STATUS_FIELDS):
                    raise _invalid()
                _check_request(subnet, request, request_id)
                if asked not in (None, request_id):
                    text = (
                        "More than one non-unique request ID exists in request_status paths: "
                        f"{(asked or b'').hex()} and {request_id.hex()}."
                    )
                    raise RequestError(400, text)
                asked = request_id
            case _:
                raise _invalid()


def check_subnet_paths(request: Request) -> None:
    """Raise RequestError unless the paths may be read by way of the subnet's URL."""
    for path in request.paths:
        if path[:1] not in ((b"time",), (b"subnet",), (b"canister_ranges",)):
            raise _invalid()
        _check_depth(path)


def _invalid() -> RequestError:
    return RequestError(404, "Invalid path requested.")


def _check_depth(path: tuple[bytes, ...]) -> None:
    if len(path) > 5:
        raise RequestError(400, "Failed to parse requested paths: path is too long.")


def _check_canister(canister: bytes, effective: bytes) -> None:
    if len(canister) > MAX_LENGTH:
        raise RequestError(400, "Could not parse principal ID.")
    if effective not in (canister, MANAGEMENT):
        text = (
            f"Effective principal id in URL {to_text(effective)} does not match requested "
            f"principal id: {to_text(canister)}."
        )
        raise RequestError(400, text)


def _check_metadata(subnet: Subnet, request: Request, canister: bytes, name: bytes) -> None:
    view = subnet.router.views.get(canister)
    try:
        section = name.decode()
    except UnicodeDecodeError as error:
        text = f"Could not parse the custom section name: {error}."
        raise RequestError(400, text) from error
    if view is None or section not in view.private_metadata:
        return
    if request.sender not in view.controllers:
        text = (
            f"Custom section {section[:100]} can only be requested by the controllers of the "
            "canister."
        )
        raise RequestError(403, text)


def _check_request(subnet: Subnet, request: Request, request_id: bytes) -> None:
    if len(request_id) != 32:
        text = "Invalid request id in paths. Maybe the request ID is not of 32 bytes in length?!"
        raise RequestError(400, text)
    entry = subnet.history.get(request_id)
    if entry is None:
        return
    if entry.sender != request.sender:
        text = "The user tries to access Request ID not signed by the caller."
        raise RequestError(403, text)
    if request.targets is not None and entry.receiver not in request.targets:
        text = (
            "The user tries to access request IDs for canisters not belonging to sender "
            "delegation targets."
        )
        raise RequestError(403, text)

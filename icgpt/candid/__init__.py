"""Candid, the value encoding of canister calls, for the types that this project needs.

`encode(types, values)` and `decode(data, types)`; the decoder follows Candid's subtyping, so a
record may have grown, an optional field may be missing. Values are plain Python: `vec nat8` is
bytes, `opt` is None or the value, a record is a dict, a variant is a dict of one entry, a
principal is raw bytes. Vectors of fixed-size numbers take a fast path.
See https://github.com/dfinity/candid/blob/master/spec/Candid.md.
"""

from icgpt.candid.decoder import decode
from icgpt.candid.encoder import encode
from icgpt.candid.types import (
    BLOB,
    BOOL,
    EMPTY,
    FLOAT32,
    FLOAT64,
    INT,
    INT8,
    INT16,
    INT32,
    INT64,
    NAT,
    NAT8,
    NAT16,
    NAT32,
    NAT64,
    NULL,
    PRINCIPAL,
    RESERVED,
    TEXT,
    CandidError,
    Func,
    Opt,
    Record,
    Service,
    Type,
    Variant,
    Vec,
    Whole,
    field_id,
    signed_leb128,
    unsigned_leb128,
)

__all__ = [
    "BLOB",
    "BOOL",
    "EMPTY",
    "FLOAT32",
    "FLOAT64",
    "INT",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "NAT",
    "NAT8",
    "NAT16",
    "NAT32",
    "NAT64",
    "NULL",
    "PRINCIPAL",
    "RESERVED",
    "TEXT",
    "CandidError",
    "Func",
    "Opt",
    "Record",
    "Service",
    "Type",
    "Variant",
    "Vec",
    "Whole",
    "decode",
    "encode",
    "field_id",
    "signed_leb128",
    "unsigned_leb128",
]

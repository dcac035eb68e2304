"""The canister's interface as Candid types, method by method; `canister/model/model.did` in Python.

Each entry of METHODS is (argument types, result types, is it a query). A test holds the table
against the `.did` file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from icgpt.candid import (
    BLOB,
    BOOL,
    FLOAT32,
    FLOAT64,
    NAT8,
    NAT16,
    NAT32,
    NAT64,
    NULL,
    PRINCIPAL,
    TEXT,
    Opt,
    Record,
    Type,
    Variant,
    Vec,
)


@dataclass(frozen=True)
class Method:
    """A method's argument and result types."""

    arguments: tuple[Type, ...] = ()
    results: tuple[Type, ...] = ()
    query: bool = False


def _result(ok: Type) -> Type:
    return Variant({"Ok": ok, "Err": TEXT})


TOKEN_IDS: Final = Vec(NAT32)
FILE_INFO: Final = Record({"length": NAT64, "sha256": BLOB})
FILE_STATE: Final = Record({"staged": Opt(FILE_INFO), "stored": BOOL, "live": Opt(FILE_INFO)})
FILES: Final = Record(
    {
        "safetensors": FILE_STATE,
        "config": FILE_STATE,
        "tokenizer": FILE_STATE,
        "packed": Opt(FILE_STATE),
    }
)
FILE_KIND: Final = Variant({"safetensors": NULL, "config": NULL, "tokenizer": NULL, "packed": NULL})
ARRIVED: Final = Record(
    {
        "length": NAT64,
        "sha256": BLOB,
        "arrived": NAT64,
        "missing": Vec(Record({"start": NAT64, "end": NAT64})),
        "hashed": FILE_INFO,
        "committed": BOOL,
    }
)
TEMPLATE: Final = Record({"prefix": TOKEN_IDS, "suffix": TOKEN_IDS, "stop": TOKEN_IDS})
SETUP: Final = Variant(
    {"empty": NULL, "setting_up": Record({"done": NAT64, "total": NAT64}), "ready": NULL}
)
ARCHITECTURE: Final = Record(
    {
        "family": TEXT,
        "n_layer": NAT32,
        "n_head": NAT32,
        "n_embd": NAT32,
        "n_ctx": NAT32,
        "n_inner": NAT32,
        "vocab_size": NAT32,
        "activation": TEXT,
        "tied": BOOL,
        "parameters": NAT64,
    }
)
MODEL_INFO: Final = Record(
    {
        "setup": SETUP,
        "name": Opt(TEXT),
        "architecture": Opt(ARCHITECTURE),
        "precision": TEXT,
        "next_precision": Opt(TEXT),
        "layout_sha256": Opt(BLOB),
        "streamed": Opt(BOOL),
        "source_sha256": Record(
            {"safetensors": Opt(BLOB), "config": Opt(BLOB), "tokenizer": Opt(BLOB)}
        ),
        "template": Opt(TEMPLATE),
        "context": TEXT,
        "tokenizer": BOOL,
        "per_message": NAT64,
        "layout_version": NAT32,
        "module_version": TEXT,
    }
)
ACCESS: Final = Record({"managers": Vec(PRINCIPAL), "users": Vec(PRINCIPAL), "public": BOOL})
BIAS: Final = Record({"token_id": NAT32, "bias": FLOAT64})
OPTION_TYPES: Final[dict[str, Type]] = {
    "max_new_tokens": Opt(NAT32),
    "min_new_tokens": Opt(NAT32),
    "temperature": Opt(FLOAT64),
    "top_k": Opt(NAT32),
    "top_p": Opt(FLOAT64),
    "typical_p": Opt(FLOAT64),
    "repetition_penalty": Opt(FLOAT64),
    "no_repeat_ngram_size": Opt(NAT32),
    "encoder_no_repeat_ngram_size": Opt(NAT32),
    "stop": Opt(Vec(TEXT)),
    "seed": Opt(NAT64),
    "logprobs": Opt(NAT32),
    "context": Opt(TEXT),
    "template": Opt(BOOL),
    "echo": Opt(BOOL),
    "begun": Opt(TOKEN_IDS),
    "max_length": Opt(NAT32),
    "min_length": Opt(NAT32),
    "max_time": Opt(FLOAT64),
    "num_beams": Opt(NAT32),
    "num_beam_groups": Opt(NAT32),
    "diversity_penalty": Opt(FLOAT64),
    "length_penalty": Opt(FLOAT64),
    "early_stopping": Opt(TEXT),
    "num_return_sequences": Opt(NAT32),
    "remove_invalid_values": Opt(BOOL),
    "logit_bias": Opt(Vec(BIAS)),
}
OPTIONS: Final = Record(OPTION_TYPES)
LOGPROB: Final = Record({"token_id": NAT32, "logprob": FLOAT32})
TOKEN_LOGPROBS: Final = Record({"chosen": LOGPROB, "top": Vec(LOGPROB)})
PROMPT: Final = Variant({"text": TEXT, "token_ids": TOKEN_IDS})
FINISH: Final = Variant(
    {"stop": NULL, "length": NULL, "context": NULL, "cancelled": NULL, "failed": TEXT}
)
SEQUENCE: Final = Record(
    {
        "token_ids": TOKEN_IDS,
        "text": Opt(TEXT),
        "logprobs": Opt(Vec(TOKEN_LOGPROBS)),
        "finish": FINISH,
        "score": Opt(FLOAT32),
    }
)
COMPLETION: Final = Record(
    {
        "token_ids": TOKEN_IDS,
        "text": Opt(TEXT),
        "logprobs": Opt(Vec(TOKEN_LOGPROBS)),
        "finish": FINISH,
        "seed": NAT64,
        "prompt_tokens": NAT32,
        "instructions": NAT64,
        "job": Opt(BLOB),
        "sequences": Opt(Vec(SEQUENCE)),
    }
)
PROGRESS: Final = Record(
    {
        "token_ids": TOKEN_IDS,
        "text": Opt(TEXT),
        "logprobs": Opt(Vec(TOKEN_LOGPROBS)),
        "finish": Opt(FINISH),
        "seed": NAT64,
        "prompt_tokens": NAT32,
        "instructions": NAT64,
        "sequences": Opt(Vec(SEQUENCE)),
    }
)
RUNNING_JOB: Final = Record(
    {
        "job": BLOB,
        "owner": PRINCIPAL,
        "submitted": BOOL,
        "running": BOOL,
        "prompt_tokens": NAT32,
        "tokens": NAT64,
        "max_tokens": NAT64,
        "instructions": NAT64,
    }
)
JOB_CERTIFICATE: Final = Record({"certificate": BLOB, "witness": BLOB, "receipt": BLOB})
RECEIPT: Final = Record(
    {
        "prompt": TOKEN_IDS,
        "options": OPTIONS,
        "seed": NAT64,
        "model": BLOB,
        "token_ids": TOKEN_IDS,
        "finish": FINISH,
        "sequences": Opt(
            Vec(Record({"token_ids": TOKEN_IDS, "finish": FINISH, "score": Opt(FLOAT32)}))
        ),
    }
)
QUOTAS: Final = Record(
    {
        "user_tokens_per_day": Opt(NAT64),
        "user_jobs": NAT32,
        "public_tokens_per_day": Opt(NAT64),
        "public_jobs": NAT32,
        "queue": NAT32,
        "cycles_floor": NAT64,
    }
)
USAGE: Final = Record({"role": TEXT, "tokens_today": NAT64, "tokens_left": Opt(NAT64)})
_HEADERS: Final = Vec(Record({0: TEXT, 1: TEXT}))
HTTP_REQUEST: Final = Record(
    {
        "method": TEXT,
        "url": TEXT,
        "headers": _HEADERS,
        "body": BLOB,
        "certificate_version": Opt(NAT16),
    }
)
HTTP_RESPONSE: Final = Record(
    {"status_code": NAT16, "headers": _HEADERS, "body": BLOB, "upgrade": Opt(BOOL)}
)
TOKEN_IDS_RESULT: Final = _result(TOKEN_IDS)
INFERENCE_RESULT: Final = _result(Record({"result": TOKEN_IDS_RESULT}))
TOKENIZER_RESULT: Final = _result(Record({"token_ids": TOKEN_IDS, "tokens": Vec(TEXT)}))
EMPTY_RESULT: Final = _result(NULL)

METHODS: Final[dict[str, Method]] = {
    # The seed's interface.
    "add_authorized_principal": Method((PRINCIPAL,)),
    "is_principal_authorized": Method((PRINCIPAL,), (BOOL,), query=True),
    "append_config_bytes": Method((BLOB,), (FILE_INFO,)),
    "append_safetensors_bytes": Method((BLOB,), (FILE_INFO,)),
    "append_tokenizer_bytes": Method((BLOB,), (FILE_INFO,)),
    "config_bytes_length": Method((), (NAT64,), query=True),
    "safetensors_bytes_length": Method((), (NAT64,), query=True),
    "tokenizer_bytes_length": Method((), (NAT64,), query=True),
    "clear_config_bytes": Method(),
    "clear_safetensors_bytes": Method(),
    "clear_tokenizer_bytes": Method(),
    "store_safetensors_bytes_to_stable": Method((), (FILE_INFO,)),
    "store_tokenizer_bytes_to_stable": Method((), (FILE_INFO,)),
    "load_safetensors_bytes_from_stable": Method((), (FILE_INFO,)),
    "load_tokenizer_bytes_from_stable": Method((), (FILE_INFO,)),
    "setup_tokenizer": Method((), (Opt(TEXT),)),
    "setup_model": Method((), (EMPTY_RESULT,)),
    "tokenize": Method((TEXT,), (TOKENIZER_RESULT,), query=True),
    "decode": Method((TOKEN_IDS,), (_result(Vec(TEXT)),), query=True),
    "decode_batch": Method((TOKEN_IDS,), (_result(TEXT),), query=True),
    "inference": Method((TOKEN_IDS, NAT8, FLOAT64), (INFERENCE_RESULT,)),
    "generate": Method((TEXT, NAT8, FLOAT64), (_result(TEXT),)),
    # Our own.
    "files": Method((), (FILES,), query=True),
    "model_info": Method((), (MODEL_INFO,), query=True),
    "begin": Method((FILE_KIND, NAT64, BLOB), (_result(ARRIVED),)),
    "write": Method((FILE_KIND, NAT64, BLOB), (_result(FILE_INFO),)),
    "missing": Method((FILE_KIND,), (Opt(ARRIVED),), query=True),
    "commit": Method((FILE_KIND, BLOB), (_result(FILE_INFO),)),
    "discard": Method((FILE_KIND,), (EMPTY_RESULT,)),
    "complete": Method((PROMPT, OPTIONS), (_result(COMPLETION),)),
    "complete_query": Method((PROMPT, OPTIONS), (_result(PROGRESS),), query=True),
    "submit": Method((PROMPT, OPTIONS), (_result(BLOB),)),
    "poll": Method((BLOB, NAT32), (_result(PROGRESS),), query=True),
    "jobs": Method((), (Vec(RUNNING_JOB),), query=True),
    "cancel": Method((BLOB,), (EMPTY_RESULT,)),
    "job_certificate": Method((BLOB,), (_result(JOB_CERTIFICATE),), query=True),
    "logits": Method((TOKEN_IDS,), (_result(Vec(FLOAT32)),)),
    "score": Method((TOKEN_IDS, TOKEN_IDS), (_result(Vec(FLOAT32)),)),
    "access": Method((), (ACCESS,), query=True),
    "add_manager": Method((PRINCIPAL,)),
    "remove_manager": Method((PRINCIPAL,)),
    "add_user": Method((PRINCIPAL,)),
    "remove_user": Method((PRINCIPAL,)),
    "set_public_mode": Method((BOOL,)),
    "quotas": Method((), (QUOTAS,), query=True),
    "set_quotas": Method((QUOTAS,), (EMPTY_RESULT,)),
    "usage": Method((), (USAGE,), query=True),
    "set_per_message": Method((NAT64,), (EMPTY_RESULT,)),
    "set_name": Method((Opt(TEXT),), (EMPTY_RESULT,)),
    "set_precision": Method((Opt(TEXT),), (EMPTY_RESULT,)),
    "set_heap_for_weights": Method((NAT64,), (EMPTY_RESULT,)),
    "http_request": Method((HTTP_REQUEST,), (HTTP_RESPONSE,), query=True),
}

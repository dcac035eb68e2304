"""The fifth outline's way of serving GPT-2, to be measured beside ours.

    python tests/bench/torch_service.py FOLDER

Hugging Face transformers on one thread of PyTorch, made int8 by `quantize_dynamic`, which leaves
GPT-2's `Conv1D` layers as they are; one request after the other. Prints its port, then answers
`POST /generate {"prompt", "max_new_tokens"}` with the number of new tokens. Needs torch and
transformers.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import torch
from transformers import AutoConfig, GPT2LMHeadModel, PreTrainedTokenizerFast


def main() -> None:
    """Serves until it is killed."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    config = AutoConfig.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder, config=config).eval()
    model = torch.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            inputs = tokenizer(asked["prompt"], return_tensors="pt")
            count = asked["max_new_tokens"]
            with torch.inference_mode():
                ids = model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=count,
                    min_new_tokens=count,
                    do_sample=False,
                    pad_token_id=0,
                )
            tokenizer.decode(ids[0])
            body = json.dumps({"tokens": len(ids[0]) - inputs["input_ids"].shape[1]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()

# ruff: noqa: RUF001 - the texts are odd on purpose
"""Write golden files for the tokenizer: what the Python library `tokenizers` does.

    pip install "tokenizers==0.21.*"
    python tests/golden/make_tokenizer.py

`tokenizer/bpe.json` is a small byte-level BPE with GPT-2's pre-tokenizer and instruct tokens,
`tokenizer/characters.json` a vocabulary of single characters, and `tokenizer/expected.json` holds,
for both, texts with their ids and tokens, and lists of ids with the text that they decode to. Many
of the lists end, or begin, within a character of several bytes.
"""

import json
import random
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

FOLDER = Path(__file__).parent / "tokenizer"
SPECIAL = ["<|endoftext|>", "### End", "### Instruction:", "### Response:\n"]
TRAINING = [
    "The canister answers when it is asked, and it keeps what it was told.",
    "A token is a piece of text; a text is a list of tokens, and there's no other secret in it.",
    "They'd said: we'll count to 1024, then to 65536, and then we're done with counting.",
    "What is the capital of France? The capital of France is Paris, isn't it?",
    "Über sieben Brücken musst du gehn – naïve café, señor",
    "Привет, мир! 你好，世界。 こんにちは 🙂🙃",
    "def main(argument: str) -> int:\n    return len(argument)\n\n\nprint(main('text'))\n",
]
TEXTS = [
    *TRAINING,
    "",
    " ",
    "  two  spaces  ",
    "\n\n\t\r\n",
    "what is the capital of France?",
    "### Instruction:\nwhat is the capital of France?\n\n### Response:\n",
    "<|endoftext|>a<|endoftext|>",
    "### Endless ### End",
    "I've we'll you're 'S 'T DON'T",
    "0 12 345 6789 3.14159",
    "e\u0301 \u00e9 \ufb01 \u2028 \u00a0 \u200d \ufeff",
    "👩‍👩‍👧‍👦 🇫🇷 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "\x00\x01\x7f\ufffd",
    "عربى हिन्दी ไทย 한국어",
    "a" * 300,
]


def bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    return tokenizer


def characters() -> Tokenizer:
    alphabet = sorted(set("".join(TRAINING[:4])) | {"\n"})
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def expected(tokenizer: Tokenizer, seed: int) -> dict[str, Any]:
    texts = []
    for text in TEXTS:
        encoding = tokenizer.encode(text)
        texts.append({"text": text, "ids": encoding.ids, "tokens": encoding.tokens})
    rng = random.Random(seed)
    size = tokenizer.get_vocab_size()
    lists = [[], [size - 1, size, 10**6]]
    lists += [[rng.randrange(size) for _ in range(rng.randrange(1, 9))] for _ in range(40)]
    for entry in texts[4:5] + texts[11:]:
        ids = entry["ids"]
        lists += [ids[:n] for n in range(1, min(len(ids), 24), 3)] + [ids[1:]]
    decoded = [
        {
            "ids": ids,
            "text": tokenizer.decode(ids, skip_special_tokens=True),
            "with_special": tokenizer.decode(ids, skip_special_tokens=False),
        }
        for ids in lists
    ]
    return {"texts": texts, "decoded": decoded, "max_id": size - 1}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    both = {"bpe": bpe(), "characters": characters()}
    for name, tokenizer in both.items():
        (FOLDER / f"{name}.json").write_text(tokenizer.to_str() + "\n")
    results = {
        name: expected(tokenizer, seed) for seed, (name, tokenizer) in enumerate(both.items())
    }
    (FOLDER / "expected.json").write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()

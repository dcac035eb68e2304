"""Training of small GPT models: text in, a folder that `icgpt upload` takes out.

`presets` names the settings, `data` brings the text, `model` is GPT-2 in PyTorch,
`loop` trains it, `export` writes model.safetensors, config.json and tokenizer.json.
Only `model` and `loop` need PyTorch (the extra `train`), so nothing is imported here.
"""

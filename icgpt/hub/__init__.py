"""Models and Spaces on the Hugging Face hub: `pushing`, `pulling`, and `space`, which writes one.

They use huggingface_hub (the extra `hub`), and so its token and HF_ENDPOINT.
"""

"""The interface that OpenAI's clients speak: what they ask, and the documents that answer it."""

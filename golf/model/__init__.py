"""The GPT: attention, blocks, embeddings and the whole model."""

"""Embeddings of recordings and transcripts, and the feature pickles made from them."""

"""From recordings and transcripts to embeddings, and from these to feature pickles."""

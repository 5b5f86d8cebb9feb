"""Cross-validation: every utterance is tested exactly once, by session, by speaker or at random."""

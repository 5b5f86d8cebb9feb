"""Cross-validation by session, by speaker or at random: every utterance is tested exactly once."""

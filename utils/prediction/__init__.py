"""From a recording and its transcript to an emotion, by a trained run."""

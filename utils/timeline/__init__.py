"""From a long recording to its utterances, and from their emotions to a timeline."""

"""Find the utterances of a long recording, and write their emotions as a timeline."""

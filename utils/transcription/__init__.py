"""Transcripts of recordings that have none, by a speech recogniser."""

"""Transcribes recordings that have no transcript with a speech recogniser."""

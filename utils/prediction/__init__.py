"""Predict the emotion of a recording and its transcript with a trained run."""

"""Fine-tuning of the upper layers of an encoder."""

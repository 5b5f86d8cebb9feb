"""Training: the graph, the training loop and the run folder."""

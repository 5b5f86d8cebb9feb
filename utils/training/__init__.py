"""The graph, the training loop and the run folder: one notion of a run."""

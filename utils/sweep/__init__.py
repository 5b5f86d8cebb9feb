"""The Top-K grid of the paper's Fig. 2: k_text x k_audio x seeds, resumable, on one machine or a Ray cluster."""

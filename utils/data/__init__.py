"""From corpora, manifests and published files to feature tensors."""

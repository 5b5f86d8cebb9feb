"""Every table and figure of the paper: what is trained, what is read back, what is concluded, the report."""

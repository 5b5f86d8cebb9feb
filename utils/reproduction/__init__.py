"""Every table and figure of the paper: trials, results read back from their folders, intervals, verdicts, report."""

"""Pruned weights as other projects write them to files; each module is one format, imported on demand."""

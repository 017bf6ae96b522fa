"""The asv suite: see README.md in this folder."""

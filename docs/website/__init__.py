"""What the site has beside its written pages; see `docs/conf.py`."""

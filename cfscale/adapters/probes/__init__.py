"""One module per protocol a health question is asked in."""

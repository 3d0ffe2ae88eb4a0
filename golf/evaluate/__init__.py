"""Scoring windows, legal test-time training, and the ledger that proves it."""

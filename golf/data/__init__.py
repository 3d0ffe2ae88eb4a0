"""Documents to token shards, and shards to training batches."""

"""Places the stages of an experiment, watches them and collects their results."""

"""An evaluation fanned out over Ray workers; runs inside the job, and imports torch and Ray."""

"""What the service costs by itself, and how that grows: many processes, many jobs, a model that only sleeps."""

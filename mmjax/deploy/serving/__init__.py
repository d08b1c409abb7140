"""HTTP service of a trained model, and a report on drift of its inputs."""

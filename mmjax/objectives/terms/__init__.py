"""The weighted terms of a run's loss."""

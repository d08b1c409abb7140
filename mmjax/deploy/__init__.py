"""Deployment of trained models: `python -m mmjax.deploy --help` lists the commands."""

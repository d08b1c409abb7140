"""Video: reading, sampling of frames, and drawing."""

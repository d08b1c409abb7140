"""Sound: reading, resampling, features and augmentation."""

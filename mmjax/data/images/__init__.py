"""Images: decoding and augmentation."""

"""A trained session as something to ask: device and precision, features, logits of images."""

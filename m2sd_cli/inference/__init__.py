"""Answers of a trained session: device and precision, features and logits of images, predictions."""

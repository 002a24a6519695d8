"""A small base model that stands for a downloaded one: built, pre-trained and kept here."""

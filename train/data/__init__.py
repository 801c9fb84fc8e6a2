"""Records, examples, collation and augmentation."""

"""What is said to the user: the catalogue, and errors turned into it."""

"""What is made of estimates over time."""

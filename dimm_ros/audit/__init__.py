"""What an attacker can read out of a map file: attacks, and their figures."""

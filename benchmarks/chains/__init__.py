"""What a gradient costs as the number of chains grows."""

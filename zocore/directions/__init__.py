"""What a direction is made of: the laws of the noise, shared by a batch or one for each example."""

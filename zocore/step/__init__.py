"""One step of any method: which directions, what is measured along them, and how the weights move."""

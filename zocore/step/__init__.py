"""One step of any method: which directions, which points are asked, what the answers weigh, how weights move."""

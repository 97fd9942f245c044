"""One run on several processes: what they have to tell each other, which is next to nothing."""

"""Loading models, and turning examples into one loss each."""

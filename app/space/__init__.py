"""A folder that a Space is made of, put together from this project: `python -m app.space`."""

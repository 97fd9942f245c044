"""Charts, as data for Plotly and as SVG until Plotly is there."""

"""The page's scripts. Plotly comes from the installed package: the page asks nothing of the network."""

from pathlib import Path

import gradio as gr
import plotly

HERE = Path(__file__).parent
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
SCRIPTS = (
    HERE / "charts" / "sketch.js",
    HERE / "charts" / "chart.js",
    HERE / "form" / "upload.js",
    HERE / "tabs" / "probes.js",
    HERE / "tabs" / "opening.js",
    HERE / "tabs" / "link.js",
)


def serve() -> None:
    """Let the server hand out the scripts, and nothing else of their folders."""
    gr.set_static_paths([PLOTLY, *SCRIPTS])


def head(upload_bytes: int) -> str:
    """Return the script tags of the page; relative, so that they work below any path."""
    plotly_at = f"gradio_api/file={PLOTLY}"
    data = f'data-plotly="{plotly_at}" data-limit="{upload_bytes}"'
    tags = (f'<script defer src="gradio_api/file={path}" {data}></script>' for path in SCRIPTS)
    return f'<link rel="preload" as="script" href="{plotly_at}">' + "".join(tags)

"""How the page looks: one quiet theme for light and dark, with the fonts of the machine.

Gradio's own themes name fonts that a browser fetches; these name none.
"""

from __future__ import annotations

from typing import Final

import gradio as gr

_SANS: Final = ("ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
_MONO: Final = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS: Final = """
.gradio-container { width: 100%; max-width: 1120px !important; margin: 0 auto !important; }
#heading .html-container { padding: 0; }
#top { padding: 1rem 0 0.5rem; }
#top h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -0.02em; margin: 0; }
#top p { color: var(--body-text-color-subdued); margin: 0.2rem 0 0; }
#top strong { color: var(--body-text-color); font-weight: 600; }
.dot { margin: 0 0.45em; opacity: 0.6; }
#buttons { flex-wrap: nowrap; }
#buttons button { min-width: 0; }
#text textarea { font-size: 1rem; line-height: 1.65; }
@media (min-width: 720px) { #text textarea { min-height: 29rem; } }
#status .html-container { padding: 0 13px; }
#status p { margin: 0; min-height: 1.5em; }
#status .said { color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
#status .failed strong { color: #b91c1c; }
.dark #status .failed strong { color: #fca5a5; }
input[type=range]::-webkit-slider-thumb { box-shadow: 0 0 0 1px var(--neutral-400) !important; }
.dark input[type=range] { --neutral-200: var(--neutral-600); }
footer { display: none !important; }
"""


def theme() -> gr.themes.Base:
    """The theme."""
    plain = gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        secondary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.zinc,
        radius_size=gr.themes.sizes.radius_md,
        font=_SANS,
        font_mono=_MONO,
    )
    made: gr.themes.Base = plain.set(
        # Small words have to be read, too: 4.5 to 1 against what is behind them.
        body_text_color_subdued="*neutral_500",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_label_text_weight="500",
        block_title_text_color="*body_text_color",
        block_title_text_weight="500",
        input_background_fill="*neutral_50",
        input_background_fill_dark="*neutral_800",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_border_width="1px",
        input_border_color="*neutral_200",
        input_border_color_dark="*neutral_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
    )
    return made

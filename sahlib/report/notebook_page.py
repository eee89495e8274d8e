"""One executed notebook as one HTML page that reads like a chapter and takes nothing from a network.

>>> page = html(Path("runs/notebooks/phantom-quick/05_evaluation.ipynb"))
"""

from __future__ import annotations

from pathlib import Path

# nbconvert's own page, without the scripts it would fetch: there are no formulas, diagrams or live widgets to draw.
# An image output carries its alternative text in its metadata, which nbconvert leaves out.
TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock html_head_js -%}
{%- block jupyter_widgets -%}{%- endblock jupyter_widgets -%}
{%- block html_head_js_mathjax -%}{%- endblock html_head_js_mathjax -%}
{%- block html_head_js_mermaidjs -%}{%- endblock html_head_js_mermaidjs -%}
{%- block html_head_css -%}<style>STYLE</style>{%- endblock html_head_css -%}
{%- block in_prompt -%}{%- endblock in_prompt -%}
{%- block empty_in_prompt -%}{%- endblock empty_in_prompt -%}
{%- block output_area_prompt -%}{%- endblock output_area_prompt -%}
{%- block data_png scoped -%}
<div class="jp-RenderedImage jp-OutputArea-output">
<img src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"
 alt="{{ output | get_metadata('alt', 'image/png') | escape_html }}">
</div>
{%- endblock data_png -%}
"""

STYLE = """
body.jp-Notebook { background: #fff; color: #1b1f24; padding: 32px 24px 56px;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif }
main { max-width: 860px; margin: 0 auto }
body .jp-Cell { padding: 2px 0 }
body .jp-RenderedHTMLCommon { font-family: inherit; font-size: 15px; line-height: 1.55 }
body .jp-OutputArea-output, body .jp-MarkdownOutput { padding: 0 }
body .jp-RenderedHTMLCommon :is(h1, h2) { font-weight: 650 }
body .jp-RenderedHTMLCommon h1 { font-size: 28px; letter-spacing: -.01em; margin: 0 0 12px }
body .jp-RenderedHTMLCommon h2 { font-size: 20px; margin: 34px 0 8px }
body .jp-InputArea-editor { border: 0; border-left: 3px solid #d8dee4; background: #f6f8fa; font-size: 12.5px;
  margin: 6px 0 10px }
body .jp-RenderedText pre { font-size: 12.5px; color: #424a53; white-space: pre-wrap }
body .jp-OutputArea-child { margin: 4px 0 8px; overflow-x: auto }
body .jp-OutputArea-output.jp-RenderedMarkdown { border-left: 3px solid #0072B2; background: #f2f7fb;
  padding: 8px 14px 1px; overflow: visible }
body .jp-RenderedHTMLCommon table { font-size: 12.5px; font-variant-numeric: tabular-nums; margin: 4px 0 }
body .jp-RenderedHTMLCommon :is(td, th) { padding: 4px 6px }
img { max-width: 100%; height: auto }
@media print { body.jp-Notebook { padding: 0 } .jp-OutputArea-child, img { break-inside: avoid } }
"""


def html(executed: Path) -> str:
    """The page of an executed notebook, its pictures inside it, each with an alternative text."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    loader = DictLoader({"chapter.html.j2": TEMPLATE.replace("STYLE", STYLE)})
    exporter = HTMLExporter(extra_loaders=[loader], template_file="chapter.html.j2", embed_images=True)
    return exporter.from_filename(str(executed))[0]

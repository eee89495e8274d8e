"""A page that holds nothing but the embedded slice browser."""


def page_of(held):
    return (
        f'<!DOCTYPE html><meta charset="utf-8"><style>{held.style}</style><div id="viewer"></div>'
        f'<script type="application/json" id="held">{held.data}</script><script type="module">{held.script}\n'
        'inPage(document.getElementById("viewer"), JSON.parse(document.getElementById("held").textContent));</script>'
    )

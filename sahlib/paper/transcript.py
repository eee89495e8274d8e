"""What the paper of this study printed and claimed: sah_attention_unet.yaml, read as anybody's claims are."""

from __future__ import annotations

from pathlib import Path

from sahlib.paper import claims

PAPER = claims.read(Path(__file__).with_name("sah_attention_unet.yaml"))
UNET, ATTENTION = PAPER.networks
TABLE_1, TABLE_2 = PAPER.samples
SETTINGS = PAPER.settings

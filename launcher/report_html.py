"""The report as one HTML page."""

from __future__ import annotations

from launcher.report import Report


def page(report: Report) -> str:
    return f"<p>{report.verdict}</p>"

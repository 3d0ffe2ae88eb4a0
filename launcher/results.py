"""What an experiment says in the end, whether it sweeps or not: read, and written as files."""

from __future__ import annotations

from golf.records import replace_file, write_json
from launcher.executors.base import Executor
from launcher.experiment import Experiment, ExperimentPaths
from launcher.report import Report, collect
from launcher.sweep_report import SweepReport, collect_sweep

Results = Report | SweepReport


def read_results(experiment: Experiment, executor: Executor) -> Results:
    """The results as they stand now."""
    if experiment.is_sweep:
        return collect_sweep(experiment, executor)
    return collect(experiment, executor)


def write_results(results: Results, paths: ExperimentPaths) -> None:
    """Put `report.json`, `report.md` and `report.html` into the experiment's folder."""
    write_json(paths.report_json, results.plain())
    markdown, page = _texts(results)
    for path, text in ((paths.report_md, markdown), (paths.report_html, page)):
        with replace_file(path) as temporary:
            temporary.write_text(text)


def _texts(results: Results) -> tuple[str, str]:
    """As Markdown and as HTML."""
    if isinstance(results, SweepReport):
        from launcher.reporting import sweep_page, sweep_tables

        return sweep_tables.markdown(results), sweep_page.page(results)
    from launcher.reporting.html import page
    from launcher.reporting.tables import markdown

    return markdown(results), page(results)

"""Run records -> one static HTML site that works from file://: no network, no server, charts readable without scripts.

    build(home, root)                   reads home/runs, root/docs; writes home/report; returns its index.html
    build_evidence(records, home, root) the same of committed records; writes home/evidence

Geometry is computed here as frozen dataclasses; drawing lives in the templates. Every text of a record is untrusted:
Jinja escapes all of it.
"""

from shared.report.site import build, build_evidence

__all__ = ["build", "build_evidence"]

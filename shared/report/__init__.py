"""Run records -> one static HTML site that works from file://: no network, no server, charts readable without scripts.

    site.build(home, root)                      reads home/runs, root/docs; writes home/report; returns its index.html
    site.build_evidence(records, home, root)    the same of committed records; writes home/evidence

Geometry is computed here as frozen dataclasses; drawing lives in the templates. Every text of a record is untrusted:
Jinja escapes all of it.
"""

"""The small library under the labs: servers, events, histories, checkers, faults, experiments, reports."""

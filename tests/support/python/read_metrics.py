"""Reads a page of metrics from standard input and tells its families as JSON."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.type in ("counter", "gauge"), family
    assert family.documentation, family
    samples = [[sample.name, sample.labels, sample.value] for sample in family.samples]
    assert family.name not in families, family
    families[family.name] = {"type": family.type, "samples": samples}
print(json.dumps(families))

"""The chart's helm-unittest files hold: read here by as much of that plugin as they use, over Helm's own rendering."""

import re
from typing import Any

import helm_python as helm
import pytest
import yaml
from charts import CHART, LOADER, chart, dotted, merged

SUITES = sorted((CHART / "tests").glob("*_test.yaml"))
CASES = [
    pytest.param(suite, case, id=f"{path.stem}-{case['it']}")
    for path in SUITES
    for suite in [yaml.safe_load(path.read_text())]
    for case in suite["tests"]
]
MISSING = object()


def at(document: Any, path: str) -> Any:
    """What lies at a path such as `spec.containers[0].args` or `metadata.labels["a.b/c"]`, or MISSING."""
    for index, quoted, name in re.findall(r'\[(\d+)\]|\["([^"]+)"\]|([^.\[\]]+)', path):
        try:
            document = document[int(index)] if index else document[quoted or name]
        except (KeyError, IndexError):
            return MISSING
    return document


def holds(kind: str, wanted: dict, documents: list[dict]) -> bool:
    if kind == "hasDocuments":
        return len(documents) == wanted["count"]
    assert documents, "nothing was rendered"
    found = [at(document, wanted.get("path", "kind")) for document in documents]
    checks = {
        "isKind": lambda value: value == wanted["of"],
        "equal": lambda value: value == wanted["value"],
        "matchRegex": lambda value: re.search(wanted["pattern"], value) is not None,
        "contains": lambda value: wanted["content"] in value,
        "notExists": lambda value: value is MISSING,
    }
    return all(checks[kind](value) for value in found)


@pytest.mark.parametrize(("suite", "case"), CASES)
def test_a_case_of_helm_unittest_holds(suite, case):
    values = merged(*(dotted(path, value) for path, value in case.get("set", {}).items()))
    [asserted] = [case["asserts"]]
    if any("failedTemplate" in one for one in asserted):
        with pytest.raises(helm.HelmError, match=re.escape(asserted[0]["failedTemplate"]["errorPattern"])):
            chart().render(values=values, name="RELEASE-NAME", namespace="NAMESPACE")
        return
    files = chart().render(values=values, name="RELEASE-NAME", namespace="NAMESPACE")
    templates = [case["template"]] if "template" in case else suite["templates"]
    texts = [files[f"spfem/templates/{template}"] for template in templates]
    documents = [item for text in texts for item in yaml.load_all(text, LOADER) if item]
    if selector := case.get("documentSelector"):
        documents = [item for item in documents if at(item, selector["path"]) == selector["value"]]
    for one in asserted:
        [(kind, wanted)] = one.items()
        assert holds(kind, wanted, documents), f"{kind} {wanted}"

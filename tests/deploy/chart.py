"""Renders the Helm chart with Helm's own code."""

import pathlib

import helm_python as helm
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs/deploy"
CHART = DEPLOY / "helm/portcullis"
POLICY = (DEPLOY / "policy/gateway.toml").read_text()


def values(*files, **more):
    """The values of these files, the later ones first, and more values: `drain={"delay": 1}`."""
    merged = {"policy": POLICY}
    for text in [(DEPLOY / name).read_text() for name in files]:
        merged = over(merged, helm.values_from_yaml(text))
    return over(merged, more)


def over(below, above):
    """A table laid over another one, as Helm does it."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: over(below[key], value) if key in below else value for key, value in above.items()}}


def manifests(given):
    """The text of each template that renders to something, by its name."""
    with helm.Chart.load(CHART) as chart:
        rendered = chart.render(given, name="portcullis", namespace="gateway")
    texts = {name.split("/")[-1]: text for name, text in sorted(rendered.items()) if name.endswith(".yaml")}
    return {name: text for name, text in texts.items() if any(yaml.safe_load_all(text))}


def objects(given):
    """All objects of a release."""
    return [found for text in manifests(given).values() for found in yaml.safe_load_all(text) if found]


def one(found, kind):
    """The only object of this kind."""
    (chosen,) = [candidate for candidate in found if candidate["kind"] == kind]
    return chosen

"""The manifests: valid for Kubernetes, and as strict as they say they are."""

import copy
import dataclasses
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from build_image import STATE, USER
from prometheus_client import REGISTRY

from iris import __version__
from iris.config import Settings
from iris.engine import metrics as engine_metrics
from iris.store.registry import load_registry

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
KUBECTL = Path(sys.executable).with_name("kubectl")
OVERLAYS = ("cpu", "gpu")
VERSIONS = ("1.30", "1.37")  # the oldest and the newest that is meant


@cache
def rendered(overlay):
    """Every object of an overlay, as `kubectl apply -k` would send it."""
    done = subprocess.run(
        [KUBECTL, "kustomize", K8S / overlay], capture_output=True, text=True, check=True
    )
    assert not done.stderr  # a warning is of something deprecated
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(overlay, kind, name="epithre-iris"):
    (found,) = (
        document
        for document in rendered(overlay)
        if (document["kind"], document["metadata"]["name"]) == (kind, name)
    )
    return found


def pods(overlay):
    return [
        document["spec"]["template"]
        for document in rendered(overlay)
        if "template" in document.get("spec", {})
    ]


def container(overlay):
    (found,) = one(overlay, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def selects(selector, template):
    return selector.items() <= template["metadata"]["labels"].items()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid_and_has_no_unknown_field(overlay, version):
    for document in rendered(overlay):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_would_be_seen():
    deployment = copy.deepcopy(one("cpu", "Deployment"))
    deployment["spec"]["template"]["spec"]["terminationGraceSeconds"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGraceSeconds"):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_in_the_namespace_that_forbids_privileges(overlay):
    namespace = one(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for document in rendered(overlay):
        if document["kind"] != "Namespace":
            assert document["metadata"]["namespace"] == namespace["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_runs_as_the_image_s_user_with_nothing_it_does_not_need(overlay):
    for template in pods(overlay):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == USER
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        for each in pod["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"/tmp"} <= {mount["mountPath"] for mount in each["volumeMounts"]}  # noqa: S108
            assert each["resources"]["limits"]["memory"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_that_ends_has_longer_than_the_longest_picture(overlay):
    pod = one(overlay, "Deployment")["spec"]["template"]["spec"]
    options = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert options[:2] == ["iris", "drain"]
    settle_s, timeout_s = (float(options[options.index(n) + 1]) for n in ("--settle", "--timeout"))
    assert timeout_s > settings(overlay).deadline_s
    after_signal_s = 30  # BentoML kills what is left then
    assert pod["terminationGracePeriodSeconds"] >= settle_s + timeout_s + after_signal_s


def settings(overlay):
    """What the pod's environment means to the service; a wrong name or value fails here."""
    plain = {e["name"]: e["value"] for e in container(overlay)["env"] if "value" in e}
    return Settings.from_env({k: v for k, v in plain.items() if k != "IRIS_REGISTRY"})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_its_settings_are_settings(overlay):
    assert str(settings(overlay).home) == STATE
    known = {f"IRIS_{field.name.upper()}" for field in dataclasses.fields(Settings)}
    assert {each["name"] for each in container(overlay)["env"]} <= known


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_database_is_named_by_a_secret_that_is_not_in_here(overlay):
    (url,) = (e for e in container(overlay)["env"] if e["name"] == "IRIS_DATABASE_URL")
    assert url["valueFrom"]["secretKeyRef"] == {"name": "epithre-iris", "key": "database-url"}
    assert "Secret" not in {document["kind"] for document in rendered(overlay)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_and_policies_reach_the_server_and_no_other_pod(overlay):
    (server,) = (t for t in pods(overlay) if t["spec"]["containers"][0]["name"] == "epithre-iris")
    others = [template for template in pods(overlay) if template is not server]
    ports = {port["name"] for port in server["spec"]["containers"][0]["ports"]}
    for kind in ("Service", "PodDisruptionBudget", "Deployment"):
        for document in rendered(overlay):
            if document["kind"] == kind:
                selector = document["spec"]["selector"]
                selector = selector.get("matchLabels", selector)
                assert selects(selector, server)
                assert not any(selects(selector, other) for other in others)
                for port in document["spec"].get("ports", ()):
                    assert port["targetPort"] in ports


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_metrics_are_for_the_monitoring_alone_and_the_public_port_for_nobody_else(overlay):
    policy = one(overlay, "NetworkPolicy")["spec"]
    assert policy["podSelector"] == {}
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    for rule in policy["ingress"]:
        (port,) = rule["ports"]
        assert rule["from"]  # an empty list would mean everybody
        if port["port"] == "metrics":
            (source,) = rule["from"]
            assert set(source) == {"namespaceSelector"}
    assert all(rule["ports"] for rule in policy["egress"])
    metrics = one(overlay, "Service", "epithre-iris-metrics")["spec"]
    assert {port["targetPort"] for port in metrics["ports"]} == {"metrics"}
    public = one(overlay, "Service")["spec"]
    assert {port["targetPort"] for port in public["ports"]} == {"http"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_for_what_they_are_about(overlay):
    asked = {
        probe: container(overlay)[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "readiness", "liveness")
    }
    assert asked == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    startup = container(overlay)["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_image_has_a_version(overlay):
    for template in pods(overlay):
        for each in template["spec"]["containers"]:
            assert re.fullmatch(rf"epithre-iris:{re.escape(__version__)}(-cuda)?", each["image"])


def test_pods_follow_a_metric_that_exists():
    assert engine_metrics.STEPS  # imported: it fills the default registry
    (metric,) = one("gpu", "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] in {metric.name for metric in REGISTRY.collect()}


def test_one_pod_has_one_gpu_and_one_file_has_one_writer():
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1
    cpu = one("cpu", "Deployment")["spec"]
    assert (cpu["replicas"], cpu["strategy"]["type"]) == (1, "Recreate")


def test_the_weights_are_where_the_registry_says():
    registry = load_registry(K8S / "gpu" / "registry.toml")
    name, _, version = registry.base.tag.partition(":")
    (mount,) = (m for m in container("gpu")["volumeMounts"] if m["name"] == "weights")
    assert mount["mountPath"] == f"/home/bentoml/bento/models/{name}/{version}"
    assert mount["subPath"] == f"models/{name}/{version}"
    (job,) = (d for d in rendered("gpu") if d["kind"] == "Job")
    (importer,) = job["spec"]["template"]["spec"]["containers"]
    home = {e["name"]: e["value"] for e in importer["env"]}["BENTOML_HOME"]
    assert registry.base.source.is_relative_to(home)

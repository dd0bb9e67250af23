"""The fields of the kinds that Kubernetes itself does not know, as far as we use them: what their makers document."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _exactly(required: Schema, optional: Schema | None = None) -> Schema:
    fields = {**required, **(optional or {})}
    return {"type": "object", "properties": fields, "required": [*required], "additionalProperties": False}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of, "minItems": 1}


_TEXT: Schema = {"type": "string", "minLength": 1}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SPAN: Schema = {"type": "string", "pattern": "^[0-9]+(s|m|h)$"}
_LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}

_POLICIES = _list(_exactly({"type": {"enum": ["Pods", "Percent"]}, "value": _COUNT, "periodSeconds": _COUNT}))
_SCALING = _exactly({"stabilizationWindowSeconds": _COUNT, "policies": _POLICIES})
_TRIGGER = _exactly(
    {
        "type": {"const": "prometheus"},
        # KEDA's metadata are strings, numbers too.
        "metadata": _exactly({"serverAddress": _TEXT, "query": _TEXT, "threshold": {"pattern": r"^\d+$", **_TEXT}}),
    }
)
_SCALED_OBJECT = _exactly(
    {"scaleTargetRef": _exactly({"name": _TEXT}), "triggers": _list(_TRIGGER)},
    {
        "pollingInterval": _COUNT,
        "minReplicaCount": _COUNT,
        "maxReplicaCount": _COUNT,
        "advanced": _exactly(
            {
                "horizontalPodAutoscalerConfig": _exactly(
                    {"behavior": _exactly({}, {"scaleUp": _SCALING, "scaleDown": _SCALING})}
                )
            }
        ),
    },
)
_RELABELING = _exactly({"sourceLabels": _list(_TEXT), "targetLabel": _TEXT}, {"replacement": _TEXT, "regex": _TEXT})
_SERVICE_MONITOR = _exactly(
    {
        "selector": _exactly({"matchLabels": _LABELS}),
        "endpoints": _list(_exactly({"port": _TEXT}, {"interval": _SPAN, "relabelings": _list(_RELABELING)})),
    }
)
_RULE = _exactly({"alert": _TEXT, "expr": _TEXT, "labels": _LABELS, "annotations": _LABELS}, {"for": _SPAN})
_PROMETHEUS_RULE = _exactly({"groups": _list(_exactly({"name": _TEXT, "rules": _list(_RULE)}, {"interval": _SPAN}))})
_ISSUER = {"oneOf": [_exactly({"selfSigned": _exactly({})}), _exactly({"ca": _exactly({"secretName": _TEXT})})]}
_KEY = _exactly(
    {"algorithm": {"const": "ECDSA"}, "size": {"const": 256}, "encoding": {"const": "PKCS8"}},
    {"rotationPolicy": {"enum": ["Always", "Never"]}},
)
_CERTIFICATE = _exactly(
    {
        "secretName": _TEXT,
        "commonName": _TEXT,
        "duration": _SPAN,
        "privateKey": _KEY,
        "issuerRef": _exactly({"name": _TEXT}),
    },
    {
        "isCA": {"type": "boolean"},
        "renewBefore": _SPAN,
        "dnsNames": _list(_TEXT),
        "ipAddresses": _list(_TEXT),
        "usages": _list({"enum": ["digital signature", "server auth", "client auth"]}),
    },
)


def _kind(version: str, kind: str, spec: Schema) -> Schema:
    metadata = _exactly({"name": _TEXT}, {"namespace": _TEXT, "labels": _LABELS})
    return _exactly({"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


KINDS = {
    "ScaledObject": _kind("keda.sh/v1alpha1", "ScaledObject", _SCALED_OBJECT),
    "ServiceMonitor": _kind("monitoring.coreos.com/v1", "ServiceMonitor", _SERVICE_MONITOR),
    "PrometheusRule": _kind("monitoring.coreos.com/v1", "PrometheusRule", _PROMETHEUS_RULE),
    "Issuer": _kind("cert-manager.io/v1", "Issuer", _ISSUER),
    "Certificate": _kind("cert-manager.io/v1", "Certificate", _CERTIFICATE),
}

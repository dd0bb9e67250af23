"""A misspelt variable is found; what other programs set is left alone."""

from __future__ import annotations

from sealkit.variables import known_variables, misspelt


def test_a_misspelt_variable_is_found_with_the_nearest_name() -> None:
    for name, nearest in (
        ("SEAL_TRIANER_THREADS", "SEAL_TRAINER_THREADS"),
        ("SEAL_TRAINER_LIMITS_MAX_RANK", "SEAL_TRAINER_LIMITS__MAX_RANK"),
        ("SEAL_CONTROLLER_DATABASE", "SEAL_CONTROLLER_DATABASE_URL"),
        ("SEAL_ADRESS", "SEAL_ADDRESS"),
        ("SEAL_TLS_CERTS", "SEAL_TLS_CERT"),
    ):
        assert list(misspelt({name: "x", "PATH": "/bin"})) == [(name, nearest)]


def test_known_names_and_those_of_others_are_not_reported() -> None:
    others = ("SEAL_TRAINER_SERVICE_HOST", "SEAL_TRAINER_PORT", "SEAL_TRAINER_PORT_50052_TCP_ADDR", "SEAL_OF_APPROVAL")
    assert list(misspelt(dict.fromkeys([*known_variables(), *others, "SEALTRAINER_MODEL"], ""))) == []

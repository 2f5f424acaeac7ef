"""What the SDK knows without its documentation is what it needs to call AWS."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.regions import EndpointResolver

from daylily_daemon.adapters.sdkdata import ENDPOINTS, LeanFiles

SERVICES: Final = ("dynamodb", "s3", "sqs", "sns", "sts")


def without_texts(value: Any) -> Any:
    """Return the same without what is documented, in plain dictionaries."""
    if isinstance(value, dict):
        return {
            key: "" if key == "documentation" and isinstance(inner, str) else without_texts(inner)
            for key, inner in value.items()
        }
    return [without_texts(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("service", SERVICES)
def test_only_documentation_is_left_out_of_a_service(service: str) -> None:
    whole = Loader().load_service_model(service, "service-2")
    lean = Loader(file_loader=LeanFiles()).load_service_model(service, "service-2")
    assert lean == without_texts(whole)
    assert json.dumps(lean) == json.dumps(without_texts(whole))  # in the same order
    assert len(json.dumps(lean)) < len(json.dumps(whole)) / 2
    assert ServiceModel(lean).operation_names == ServiceModel(whole).operation_names


@pytest.mark.parametrize("kind", ["endpoint-rule-set-1", "paginators-1", "waiters-2"])
def test_other_files_are_read_whole(kind: str) -> None:
    lean = Loader(file_loader=LeanFiles()).load_service_model("s3", kind)
    assert lean == Loader().load_service_model("s3", kind)


def test_endpoints_of_the_services_that_are_called_are_the_same() -> None:
    whole, lean = (
        Loader().load_data("endpoints"),
        Loader(file_loader=LeanFiles()).load_data("endpoints"),
    )
    for region in (
        "us-west-2",
        "us-east-1",
        "eu-central-1",
        "cn-north-1",
        "us-gov-west-1",
        "mars-1",
    ):
        for service in sorted(ENDPOINTS):
            found = EndpointResolver(lean).construct_endpoint(service, region)
            assert found == EndpointResolver(whole).construct_endpoint(service, region)


def test_a_file_that_is_not_there_is_none() -> None:
    assert LeanFiles().load_file("/nowhere/service-2") is None

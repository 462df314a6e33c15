"""What a class says of its storages before anybody records: the operator tries those that it has a Secret for."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from support.cluster import (
    GROUP,
    Object,
    Tenant,
    bucket_keys,
    class_object,
    condition,
    fresh_name,
    secret,
    storage_object,
)


def wait(tenant: Tenant, status: str, reason: str) -> Object:
    """Wait until the class says so of its storages."""
    return tenant.cluster.wait(
        f"recordingclasses.{GROUP}",
        tenant.class_name,
        "default",
        lambda one: (condition(one, "StorageReady").get("status"), condition(one, "StorageReady").get("reason"))
        == (status, reason),
        f"StorageReady is {status}, {reason}",
    )


def owner_of_buckets(tenant: Tenant) -> Any:
    """A client that may make buckets."""
    one = tenant.cluster.environment
    return boto3.client(
        "s3",
        endpoint_url=one["S3_ENDPOINT"],
        aws_access_key_id=one["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=one["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def test_a_class_says_what_is_wrong_with_its_storage_until_it_is_put_right(tenant: Tenant, operator: str) -> None:
    cluster, key = tenant.cluster, fresh_name("check")
    credentials = {"secretName": "bucket", "operatorSecretName": key}

    def use(**s3: str) -> None:
        cluster.apply(class_object(cluster, tenant.namespace, storages=[storage_object(cluster, credentials, **s3)]))

    try:
        use()
        found = wait(tenant, "False", "StorageSecretNotFound")
        assert (
            f"Secret {key} in namespace {operator} does not exist: create it"
            in condition(found, "StorageReady")["message"]
        )
        cluster.apply(secret(key, operator, bucket_keys(cluster)))
        wait(tenant, "True", "StorageAvailable")

        missing = fresh_name("later")
        use(bucket=missing)
        found = wait(tenant, "False", "StorageRefused")
        assert f"storage bucket: bucket '{missing}' at" in condition(found, "StorageReady")["message"]
        assert "does not exist: create it" in condition(found, "StorageReady")["message"]
        (known,) = found["status"]["storages"]
        assert (known["name"], known["ready"], known["reason"]) == ("bucket", "False", "StorageRefused")
        owner_of_buckets(tenant).create_bucket(Bucket=missing)
        found = wait(tenant, "True", "StorageAvailable")

        assert owner_of_buckets(tenant).list_objects_v2(Bucket=missing).get("Contents", []) == [], "nothing stays"
        assert cluster.environment["AWS_SECRET_ACCESS_KEY"] not in str(found)
        assert condition(found, "Ready")["status"] == "True"
    finally:
        cluster.kubectl("delete", "secret", key, "-n", operator, "--ignore-not-found")

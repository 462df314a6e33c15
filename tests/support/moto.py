"""moto as somebody who asks who comes: roles and users with policies, and from a moment on signatures are checked."""

from __future__ import annotations

import http.client
import json
from typing import Any

import boto3

from isotrack_dev.servers import S3Info

ROLE = "recorder"


def service(server: S3Info, name: str) -> Any:
    """A client of one of its services, as whoever runs it."""
    return boto3.client(
        name,  # type: ignore[call-overload]
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
    )


def a_role(server: S3Info, action: str) -> str:
    """ARN of a role that may do `action`."""
    iam = service(server, "iam")
    document = json.dumps({"Version": "2012-10-17", "Statement": []})
    arn: str = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=document)["Role"]["Arn"]
    iam.put_role_policy(RoleName=ROLE, PolicyName="storage", PolicyDocument=_policy(action))
    return arn


def a_key(server: S3Info, action: str) -> tuple[str, str]:
    """Access and secret key of a user who may do `action`."""
    iam = service(server, "iam")
    iam.create_user(UserName="somebody")
    iam.put_user_policy(UserName="somebody", PolicyName="storage", PolicyDocument=_policy(action))
    key = iam.create_access_key(UserName="somebody")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def ask_who_comes(server: S3Info) -> None:
    """From now on moto checks signatures and policies."""
    connection = http.client.HTTPConnection(server.endpoint.removeprefix("http://"), timeout=60)
    try:
        connection.request("POST", "/moto-api/reset-auth", body=b"0", headers={"Content-Type": "text/plain"})
        assert connection.getresponse().status == http.HTTPStatus.OK
    finally:
        connection.close()


def _policy(action: str) -> str:
    statement = {"Effect": "Allow", "Action": [action], "Resource": ["*"]}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

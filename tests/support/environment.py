"""Environment of processes that are to find the servers of a test."""

from __future__ import annotations

from isotrack_dev.servers import LiveKitInfo, S3Info


def of_sfu(server: LiveKitInfo) -> dict[str, str]:
    """Address and keys, under the names that LiveKit's own tools read."""
    return {
        "LIVEKIT_URL": server.url,
        "LIVEKIT_API_KEY": server.api_key,
        "LIVEKIT_API_SECRET": server.api_secret,
    }


def of_servers(server: LiveKitInfo, s3: S3Info) -> dict[str, str]:
    """The same, and what the AWS SDKs read."""
    return {
        **of_sfu(server),
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_REGION": s3.region,
        "AWS_ENDPOINT_URL_S3": s3.endpoint,
    }

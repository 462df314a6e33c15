"""What people call a recording in a bucket."""

from __future__ import annotations

import pytest

from isotrack_recorder.errors import ConfigError
from isotrack_recorder.ship.address import folder_of


@pytest.mark.parametrize(
    ("place", "bucket", "folder"),
    [
        pytest.param("s3://media/standup-1a2b", "media", "standup-1a2b", id="folder"),
        pytest.param("s3://media/calls/team-a/standup-1a2b/", "media", "calls/team-a/standup-1a2b", id="slash"),
        pytest.param("s3://media/calls/standup/recording.json", "media", "calls/standup", id="manifest"),
        pytest.param("s3://media/calls/standup/intent.json", "media", "calls/standup", id="intent"),
        pytest.param("s3://media/old-recording.json", "media", "old-recording.json", id="like-a-manifest"),
    ],
)
def test_a_folder_and_what_lies_in_it_name_the_same(place: str, bucket: str, folder: str) -> None:
    destination, found = folder_of(place, {"AWS_ENDPOINT_URL": "http://s3:9000", "AWS_DEFAULT_REGION": "eu-north-1"})
    assert (destination.bucket, found) == (bucket, folder)
    assert (destination.endpoint, destination.region) == ("http://s3:9000", "eu-north-1")
    assert destination.force_path_style


def test_without_an_endpoint_it_is_aws() -> None:
    destination, _ = folder_of("s3://media/x", {})
    assert (destination.endpoint, destination.region, destination.force_path_style) == (None, "us-east-1", False)


@pytest.mark.parametrize(
    "place", ["s3://", "s3://media", "s3://media/", "s3:///x", "s3://media/recording.json", "s3://M/x", "https://a/b"]
)
def test_what_names_no_folder_is_refused_with_its_name(place: str) -> None:
    with pytest.raises(ConfigError) as refused:
        folder_of(place, {})
    assert repr(place) in str(refused.value)

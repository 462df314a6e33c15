"""What a Recording comes to: its own spec, then its class's defaults, then built-in values, cut to the class's maxima. Pure.

Resolved once, at the start: later attempts take over the Intent of the one before, except for what is allowed to change (the
allowlist) or was only learnt meanwhile (session and epoch of the call).
"""

from __future__ import annotations

from pydantic import ValidationError

from isotrack_api.base import (
    DEFAULT_CHECKPOINT_SECONDS,
    DEFAULT_FILE_NAME_TEMPLATE,
    DEFAULT_KEY_FRAME_INTERVAL_SECONDS,
    DEFAULT_OUTPUT_TYPES,
    Container,
    Quality,
)
from isotrack_api.intent import (
    Encryption,
    Intent,
    IntentLimits,
    LiveKitSource,
    OutputLayer,
    RecordingRef,
    S3Destination,
)
from isotrack_api.recording import (
    DesiredState,
    Effective,
    EffectiveLayer,
    EffectiveLimits,
    Layer,
    Recording,
    RecordingLimits,
    RecordingSpec,
)
from isotrack_api.recording_class import ClassDefaults, ClassLimits, RecordingClass, Storage

from .builders import names

MAX_DURATION_SECONDS = 86400
EMPTY_TIMEOUT_SECONDS = 60
START_TIMEOUT_SECONDS = 300


def storage_of(recording: Recording, recording_class: RecordingClass) -> Storage | None:
    """The storage of this Recording: the one that it started with, else the one that it asks for, else the class's default."""
    frozen = recording.status.effective
    return recording_class.spec.storage_named(frozen.storage if frozen else recording.spec.storage)


def effective_of(recording: Recording, recording_class: RecordingClass, storage: Storage) -> Effective:
    """What the Recording resolved to, or resolves to now if it has not started."""
    if recording.status.effective is not None:
        return recording.status.effective
    return Effective(
        layers=layers_of(recording.spec, recording_class.spec.defaults or ClassDefaults()),
        storage=storage.name,
        limits=limits_of(recording, recording_class),
    )


def layers_of(spec: RecordingSpec, defaults: ClassDefaults) -> tuple[EffectiveLayer, ...]:
    """The named sets of files.

    A Recording's word goes before its class's, and in either a layer's before what is said for all layers. `outputTypes` without
    `layers` asks for one set of files, so the class's layers, which are several, do not apply.
    """
    unsaid = Layer(name="default")
    if spec.layers is not None:
        pairs = [(own, unsaid) for own in spec.layers]
    elif spec.output_types is None and defaults.layers is not None:
        pairs = [(unsaid.model_copy(update={"name": theirs.name}), theirs) for theirs in defaults.layers]
    else:
        pairs = [(unsaid, unsaid)]
    return tuple(
        EffectiveLayer(
            name=own.name,
            file_name_prefix=own.file_name_prefix or theirs.file_name_prefix or own.name,
            output_types=own.output_types
            or spec.output_types
            or theirs.output_types
            or defaults.output_types
            or DEFAULT_OUTPUT_TYPES,
            container=own.container or spec.container or theirs.container or defaults.container or Container.MKV,
            file_name_template=own.file_name_template
            or spec.file_name_template
            or theirs.file_name_template
            or defaults.file_name_template
            or DEFAULT_FILE_NAME_TEMPLATE,
        )
        for own, theirs in pairs
    )


def limits_of(recording: Recording, recording_class: RecordingClass) -> EffectiveLimits:
    """Limits in force."""
    own = recording.spec.limits or RecordingLimits()
    default = (recording_class.spec.defaults or ClassDefaults()).limits or RecordingLimits()
    most = recording_class.spec.limits or ClassLimits()

    def first(*values: int | None) -> int:
        return next(value for value in values if value is not None)

    return EffectiveLimits(
        max_duration_seconds=_at_most(
            first(own.max_duration_seconds, default.max_duration_seconds, MAX_DURATION_SECONDS),
            most.max_duration_seconds,
        ),
        empty_timeout_seconds=_at_most(
            first(own.empty_timeout_seconds, default.empty_timeout_seconds, EMPTY_TIMEOUT_SECONDS),
            most.empty_timeout_seconds,
        ),
        start_timeout_seconds=_at_most(
            first(own.start_timeout_seconds, default.start_timeout_seconds, START_TIMEOUT_SECONDS),
            most.start_timeout_seconds,
        ),
    )


def _at_most(value: int, maximum: int | None) -> int:
    """Cut to the maximum; 0 means "without end" and is more than any."""
    if maximum is None:
        return value
    return maximum if value == 0 else min(value, maximum)


def destination_of(storage: Storage) -> S3Destination:
    """Where files of a storage go."""
    s3 = storage.s3
    return S3Destination(
        bucket=s3.bucket,
        prefix=s3.prefix or "",
        region=s3.region or "us-east-1",
        endpoint=s3.endpoint,
        force_path_style=s3.force_path_style,
        server_side_encryption=(
            Encryption(mode=wish.mode, kms_key_id=wish.kms_key_id) if (wish := s3.server_side_encryption) else None
        ),
        checkpoint_seconds=DEFAULT_CHECKPOINT_SECONDS if s3.checkpoint_seconds is None else s3.checkpoint_seconds,
    )


def intent_of(
    recording: Recording,
    recording_class: RecordingClass,
    storage: Storage,
    n: int,
    previous: str = "",
    *,
    beside: bool = False,
) -> Intent:
    """What attempt `n` is told.

    Args:
        previous: Intent of the attempt before (JSON), if its Job still exists.
        beside: The attempt before captures on until this one does, and then ends by itself.
    """
    status, allowed = recording.status, recording.spec.participants
    changing = {
        "attempt": n,
        "call_sid": status.call_sid,
        "epoch_ms": status.epoch_ms,
        "user_ids": allowed.user_ids if allowed else None,
        "paused": recording.spec.desired_state is DesiredState.PAUSED,
    }
    before = _read(previous)
    if before is None:
        return _fresh_intent(recording, recording_class, storage).model_copy(update=changing)
    if beside and before.storage is not None and before.storage.checkpoint_seconds:
        # NB: not without checkpoints. Of them both pods' media becomes one file; by themselves each would make its own.
        identity = _other_identity(before.source.identity, names.uid_of(recording))
        before = before.model_copy(update={"source": before.source.model_copy(update={"identity": identity})})
    return before.model_copy(update=changing)


def identity_of(intent: str, uid: str) -> str:
    """The identity that an attempt with this Intent (JSON) joins with."""
    found = _read(intent)
    return names.identity(uid) if found is None else found.source.identity


def _read(intent: str) -> Intent | None:
    """None where there is none, or where it is of another `version`: then all is resolved anew, from the frozen `effective`."""
    try:
        return Intent.from_json(intent) if intent else None
    except ValidationError:
        return None


def _other_identity(identity: str, uid: str) -> str:
    return names.identity(uid, other=identity == names.identity(uid))


def _fresh_intent(recording: Recording, recording_class: RecordingClass, storage: Storage) -> Intent:
    effective = effective_of(recording, recording_class, storage)
    namespace, name, uid = names.namespace_of(recording), recording.metadata.name, names.uid_of(recording)
    server = recording_class.spec.source.livekit
    return Intent(
        recording=RecordingRef(namespace=namespace, name=name, uid=uid),
        call_id=recording.spec.call.id,
        source=LiveKitSource(
            url=server.url,
            identity=names.identity(uid),
            quality=Quality.HIGH if server.quality is None else server.quality,
        ),
        layers=tuple(
            OutputLayer(
                name=layer.name,
                file_name_prefix=layer.file_name_prefix,
                output_types=layer.output_types,
                container=layer.container,
                file_name_template=layer.file_name_template,
            )
            for layer in effective.layers
        ),
        key_frame_interval_seconds=(
            DEFAULT_KEY_FRAME_INTERVAL_SECONDS
            if recording_class.spec.key_frame_interval_seconds is None
            else recording_class.spec.key_frame_interval_seconds
        ),
        limits=IntentLimits(
            max_duration_seconds=effective.limits.max_duration_seconds,
            empty_timeout_seconds=effective.limits.empty_timeout_seconds,
        ),
        storage=destination_of(storage),
        folder=names.folder(namespace, name, uid),
    )

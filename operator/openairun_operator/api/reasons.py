"""Every reason that a condition or an event can bear. Users may rely on them."""

from enum import StrEnum


class Reason(StrEnum):
    """CamelCase constants, as the Kubernetes API conventions ask of a condition's reason."""

    # On the way
    CREATING = "Creating"
    QUEUED = "Queued"
    RUNNING = "Running"
    ACTION_REQUIRED = "ActionRequired"
    CANCELLING = "Cancelling"
    REPLACING = "Replacing"
    FINDING = "FindingRun"
    BUSY = "Busy"
    SUBMITTING = "SubmittingToolOutputs"
    SUSPENDED = "Suspended"
    CONCURRENCY_LIMIT = "ConcurrencyLimit"
    IN_SYNC = "InSync"
    AVAILABLE = "Available"

    # How it ended
    COMPLETED = "Completed"
    FAILED = "Failed"
    INCOMPLETE = "Incomplete"
    EXPIRED = "Expired"
    CANCELLED = "Cancelled"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    LOST = "Lost"
    INVALID_REQUEST = "InvalidRequest"
    INVALID_SPEC = "InvalidSpec"

    # A person must act
    RECORD_REFUSED = "RecordRefused"
    NO_CREDENTIALS = "NoCredentials"
    INVALID_CREDENTIALS = "InvalidCredentials"
    PERMISSION_DENIED = "PermissionDenied"
    ADDRESS_REFUSED = "AddressRefused"
    QUOTA_EXCEEDED = "QuotaExceeded"
    API_NOT_SERVED = "APINotServed"
    MODEL_NOT_SET = "ModelNotSet"
    MODEL_NOT_ACCESSIBLE = "ModelNotAccessible"
    TOOL_OUTPUTS_REFUSED = "ToolOutputsRefused"
    RUN_NOT_FOUND = "RunNotFound"
    PROVIDER_NOT_FOUND = "ProviderNotFound"
    API_NOT_ALLOWED = "APINotAllowed"
    ID_NOT_ALLOWED = "IDNotAllowed"
    CREATE_OUTCOME_UNKNOWN = "CreateOutcomeUnknown"

    # Passing trouble, retried
    RATE_LIMITED = "RateLimited"
    SERVER_ERROR = "ServerError"
    UNREACHABLE = "Unreachable"
    TIMED_OUT = "TimedOut"
    UNREADABLE_ANSWER = "UnreadableAnswer"
    PROVIDER_CHANGED = "ProviderChanged"
    NOT_FOUND = "NotFound"
    REFUSED = "Refused"
    REFERENCE_NOT_FOUND = "ReferenceNotFound"
    REFERENCE_FORBIDDEN = "ReferenceForbidden"

    # Beside the run
    STORED = "Stored"
    OUTPUT_NOT_ALLOWED = "OutputNotAllowed"
    OUTPUT_TOO_BIG = "OutputTooBig"
    OUTPUT_NOT_OURS = "OutputNameTaken"
    OUTPUT_NOT_WRITTEN = "OutputNotWritten"
    OUTPUT_LOST = "OutputLost"
    NO_EFFECT = "NoEffect"
    TTL_UNDER_GITOPS = "TTLUnderGitOps"

    # Events only
    CREATED = "Created"
    ADOPTED = "Adopted"
    EXPIRED_TTL = "TTLExpired"
    ORPHANED = "Orphaned"

"""What AWS may say, call by call, and that nothing of ours is ever taken for a definite no."""

from __future__ import annotations

from typing import Any, Final

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from daylily_daemon.adapters.answers import Meaning, every_no, meaning_of
from daylily_daemon.adapters.aws import translated
from daylily_daemon.domain.errors import DaemonError, Impeded, Permanent, Transient

CALLS: Final = {
    "dynamodb": (
        *("GetItem", "PutItem", "UpdateItem", "Query", "Scan", "BatchGetItem"),
        *("TransactWriteItems", "DescribeTable", "CreateTable", "UpdateTable"),
    ),
    "sqs": (
        *("ReceiveMessage", "SendMessage", "SendMessageBatch", "DeleteMessage"),
        *("DeleteMessageBatch", "GetQueueUrl", "GetQueueAttributes", "ChangeMessageVisibility"),
    ),
    "s3": (
        *("HeadObject", "GetObject", "PutObject", "DeleteObject", "ListObjectsV2"),
        *("HeadBucket", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"),
    ),
    "sns": ("Publish", "ListTopics", "CreateTopic"),
}
EVERYWHERE: Final = (
    *("AccessDenied", "AccessDeniedException", "AllAccessDisabled", "UnauthorizedOperation"),
    *("AuthorizationError", "AuthorizationErrorException", "UnauthorizedAccess", "Forbidden"),
    *("OptInRequired", "SubscriptionRequiredException", "AccountProblem", "NotSignedUp"),
    *("PendingVerification", "UserSuspended", "InvalidSecurity", "RegionDisabledException"),
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"),
    *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"),
    *("SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"),
    *("MissingAuthenticationToken", "MissingAuthenticationTokenException", "AuthFailure"),
    *("RequestTimeTooSkewed", "InvalidToken", "301", "307", "400", "401", "403", "407", "unknown"),
    *("SomethingNobodyHasHeardOfException", "AWS.SimpleQueueService.SomethingNew", "", "<html>"),
)
OURS: Final = {
    "dynamodb": (
        *("ResourceNotFoundException", "TableNotFoundException", "ResourceInUseException"),
        *("TableInUseException", "IndexNotFoundException", "PolicyNotFoundException"),
        *("KMSAccessDeniedException", "KMS.DisabledException", "KMSInvalidStateException"),
        *("InaccessibleEncryptionKeyException", "KMS.NotFoundException", "EndpointException"),
    ),
    "sqs": (
        *("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"),
        *("KmsAccessDenied", "KmsDisabled", "KmsInvalidState", "KmsNotFound", "KmsOptInRequired"),
        *("KmsInvalidKeyUsage", "KMS.AccessDeniedException", "InvalidAction", "Overdue"),
    ),
    "s3": (
        *(
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "IllegalLocationConstraintException",
        ),
        *("KMS.DisabledException", "KMS.NotFoundException", "KMS.KMSInvalidStateException"),
        *(
            "KMS.PendingDeletion",
            "InvalidPayer",
            "AccountProblem",
            "CrossLocationLoggingProhibited",
        ),
        *("ServerSideEncryptionConfigurationNotFoundError", "AccessPointNotFound", "NoSuchThing"),
    ),
    "sns": (
        *("NotFound", "NotFoundException", "EndpointDisabled", "PlatformApplicationDisabled"),
        *("KMSAccessDenied", "KMSDisabled", "KMSInvalidState", "KMSNotFound", "KMSOptInRequired"),
        *("InvalidSecurity", "TopicNotFound"),
    ),
}
AGAIN: Final = (
    *("Throttling", "ThrottlingException", "ThrottledException", "Throttled", "RequestThrottled"),
    *("RequestThrottledException", "TooManyRequestsException", "RequestLimitExceeded"),
    *("ProvisionedThroughputExceededException", "BandwidthLimitExceeded", "LimitExceededException"),
    *(
        "SlowDown",
        "PriorRequestNotComplete",
        "EC2ThrottledException",
        "TransactionInProgressException",
    ),
    *("KMS.ThrottlingException", "KMSThrottlingException", "KMSThrottling", "KmsThrottled"),
    *("KMS.KMSInternalException", "KMS.DependencyTimeoutException", "KMS.LimitExceededException"),
    *("InternalError", "InternalServerError", "InternalFailure", "InternalErrorException"),
    *("ServiceUnavailable", "ServiceUnavailableException", "RequestTimeout", "503", "500", "429"),
    *(
        "OperationAborted",
        "ConditionalRequestConflict",
        "TransactionConflictException",
        "OverLimit",
    ),
    *("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "NoSuchUpload", "502", "504"),
    *("AWS.SimpleQueueService.QueueDeletedRecently", "QueueDeletedRecently"),
    *("AWS.SimpleQueueService.PurgeQueueInProgress", "ReplicatedWriteConflictException"),
)
OURS_BY_WORDS: Final = (
    ("Query", "ValidationException", "The table does not have the specified index: by-state"),
    ("Query", "ValidationException", "Cannot read from backfilling global secondary index: x"),
    ("Query", "ValidationException", "Query condition missed key schema element: state"),
    ("GetItem", "ValidationException", "The provided key element does not match the schema"),
    ("Publish", "InvalidParameter", "Invalid parameter: TopicArn Reason: no valid ARN"),
    ("Publish", "InvalidParameterException", "Invalid parameter: TargetArn"),
    (
        "ReceiveMessage",
        "InvalidParameterValue",
        "Value 99 for parameter WaitTimeSeconds is invalid.",
    ),
    ("SendMessage", "InvalidParameterValue", "The QueueUrl is not valid."),
    ("GetQueueUrl", "InvalidParameterValue", "Queue name cannot be longer than 80."),
)
NO_BY_WORDS: Final = (
    ("PutItem", "ValidationException", "Item size has exceeded the maximum allowed size"),
    ("UpdateItem", "ValidationException", "Item size to update has exceeded the maximum size"),
    ("PutItem", "ValidationException", "One or more parameter values are not valid."),
    ("Publish", "InvalidParameter", "Invalid parameter: Message too long"),
    ("Publish", "InvalidParameterValue", "The message attribute is not valid."),
    ("SendMessage", "InvalidParameterValue", "Message must be shorter than 262144 bytes."),
    ("SendMessage", "InvalidMessageContents", "Invalid characters found."),
    ("DeleteMessage", "ReceiptHandleIsInvalid", "The receipt handle is not valid."),
    ("SendMessageBatch", "AWS.SimpleQueueService.BatchRequestTooLong", "Too long."),
    ("GetObject", "NoSuchKey", "The key does not exist."),
    ("GetObject", "InvalidObjectState", "It is archived."),
    ("GetObject", "InvalidRequest", "The object was stored with server-side encryption."),
    ("GetObject", "InvalidRange", "Not satisfiable."),
    ("ListObjectsV2", "NoSuchBucket", "There is none."),
)
CREDENTIAL_CALLS: Final = (
    *("AssumeRole", "AssumeRoleWithWebIdentity", "AssumeRoleWithSAML", "AssumeRoot"),
    *("GetSessionToken", "GetFederationToken", "GetRoleCredentials", "GetCallerIdentity"),
    *("CreateToken", "CreateTokenWithIAM", "CreateOAuth2Token", "RegisterClient"),
)


def said(operation: str, code: str, status: int = 400, words: str = "No") -> ClientError:
    answer: Any = {
        "Error": {"Code": code, "Message": words},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
    }
    return ClientError(answer, operation)


async def meant(operation: str, code: str, status: int = 400, words: str = "No") -> DaemonError:
    with pytest.raises(DaemonError) as raised:
        async with translated("the thing"):
            raise said(operation, code, status, words)
    assert str(raised.value).endswith(".")
    return raised.value


@pytest.mark.parametrize("service", CALLS)
@pytest.mark.reported("A", "AccessDenied while IAM spreads (terraform-provider-aws#32966)")
@pytest.mark.reported(
    "A", "ResourceNotFound of a table that is there (terraform-provider-aws#17098)"
)
async def test_what_is_ours_is_never_taken_for_a_no_about_the_thing(service: str) -> None:
    for operation in CALLS[service]:
        for code in (*EVERYWHERE, *OURS[service]):
            for status in (400, 403, 404):
                answer = await meant(operation, code, status)
                assert isinstance(answer, Impeded), (operation, code, status, answer)


@pytest.mark.parametrize("service", CALLS)
async def test_what_passes_by_itself_is_unknown_and_nobodys_trouble(service: str) -> None:
    for operation in CALLS[service]:
        for code in AGAIN:
            answer = await meant(operation, code)
            assert type(answer) is Transient, (operation, code, answer)
        for status in (429, 500, 502, 503, 504):
            answer = await meant(operation, "Whatever", status)
            assert type(answer) is Transient, (operation, status, answer)


@pytest.mark.parametrize(("operation", "code", "words"), OURS_BY_WORDS)
async def test_one_code_of_two_meanings_is_ours_where_the_words_say_so(
    operation: str, code: str, words: str
) -> None:
    assert isinstance(await meant(operation, code, 400, words), Impeded)


@pytest.mark.parametrize(("operation", "code", "words"), NO_BY_WORDS)
async def test_a_definite_no_is_about_the_thing(operation: str, code: str, words: str) -> None:
    answer = await meant(operation, code, 400, words)
    assert isinstance(answer, Permanent)
    assert answer.code == code


@pytest.mark.parametrize("operation", CREDENTIAL_CALLS)
async def test_what_credentials_are_refused_with_is_never_about_a_workset(operation: str) -> None:
    for code in (
        "ValidationError",
        "NoSuchKey",
        "MalformedPolicyDocument",
        "X",
        *every_no(),
        *AGAIN,
    ):
        answer = await meant(operation, code)
        assert isinstance(answer, Impeded), (operation, code)
        assert answer.code == "credentials"
        assert meaning_of(operation, code) is Meaning.OURS


@given(st.text(max_size=200), st.text(max_size=200), st.integers(300, 499), st.text(max_size=2000))
def test_only_what_is_on_the_list_is_a_no(
    operation: str, code: str, status: int, words: str
) -> None:
    if meaning_of(operation, code, status, words) is Meaning.NO:
        assert code.rpartition(".")[2].removesuffix("Exception") in every_no()

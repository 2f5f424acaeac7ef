"""What an answer of AWS means: the one table of codes, and the sentences that go with them.

Three classes. *Again*: AWS did not do it this time (throttling, 5xx). *Ours*: AWS refuses just as
definitely, but because of our rights, tables, keys, settings or credentials, and takes it back once they are
fixed. *No*: a definite no about this very thing. A *no* parks messages, fails worksets and gives up
notices, so it has to be on the list below; a code that nobody has met yet is taken for ours. What was asked
on behalf of our credentials (the SDK asks STS for a role when a session ends) is ours whatever the code is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum, auto
from typing import Final

from botocore.exceptions import ClientError

WORDS_LIMIT: Final = 500
"""Characters of another side's words that are shown."""


class Meaning(StrEnum):
    AGAIN = auto()
    OURS = auto()
    NO = auto()


_NO: Final = frozenset(
    {
        # S3, about an object or what was asked of it. An answer to HEAD has a status alone.
        *("NoSuchKey", "NoSuchVersion", "NoSuchBucket", "404", "MethodNotAllowed", "405"),
        *("InvalidObjectState", "ObjectNotInActiveTierError", "ObjectAlreadyInActiveTierError"),
        *("InvalidBucketName", "KeyTooLong", "KeyTooLongError", "InvalidURI", "NotModified", "304"),
        *("PreconditionFailed", "412", "InvalidRange", "416", "InvalidRequest", "InvalidArgument"),
        *("EntityTooLarge", "EntityTooSmall", "InvalidPart", "InvalidPartOrder", "MalformedXML"),
        *("MetadataTooLarge", "InvalidStorageClass", "MaxMessageLengthExceeded", "413"),
        *("BucketAlreadyExists", "BucketAlreadyOwnedByYou"),
        # DynamoDB, about an item. Some of what it calls a ValidationException is ours: _OUR_TABLES.
        *(
            "Validation",
            "ValidationError",
            "ItemCollectionSizeLimitExceeded",
            "ConditionalCheckFailed",
        ),
        *("IdempotentParameterMismatch", "DuplicateItem", "TransactionCanceled"),
        # SQS and SNS, about a message. Some of what they call invalid is ours: _OUR_NAMES.
        *(
            "InvalidMessageContents",
            "InvalidParameter",
            "InvalidParameterValue",
            "MissingParameter",
        ),
        *("ParameterValueInvalid", "InvalidAttributeName", "InvalidAttributeValue"),
        # SES, about a mail. Most of what it rejects is ours: _OUR_MAIL.
        "MessageRejected",
        *("BatchRequestTooLong", "EmptyBatchRequest", "TooManyEntriesInBatchRequest"),
        *("BatchEntryIdsNotDistinct", "InvalidBatchEntryId", "UnsupportedOperation"),
        *("ReceiptHandleIsInvalid", "MessageNotInflight", "QueueNameExists", "QueueAlreadyExists"),
    }
)
_AGAIN: Final = re.compile(
    r"throttl|slowdown|toomanyrequests|limitexceeded|throughputexceeded|limitreached|overlimit"
    r"|unavailable|timeout|internal|priorrequestnotcomplete|transactioninprogress|conflict"
    r"|operationaborted|baddigest|sha256mismatch|checksum|incompletebody|nosuchupload"
    r"|queuedeletedrecently|purgequeueinprogress|^(429|500|502|503|504)$",
    re.IGNORECASE,
)
"""Parts of codes: every service has its own word for each of these."""
_CREDENTIALS: Final = frozenset(
    {
        *("ExpiredToken", "RequestExpired", "TokenRefreshRequired", "AuthFailure", "Expired"),
        *("InvalidToken", "InvalidClientTokenId", "UnrecognizedClient", "NotSignedUp"),
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidSignature", "InvalidSecurity"),
        *("MissingAuthenticationToken", "MissingSecurityHeader", "RequestTimeTooSkewed"),
        *("IncompleteSignature", "AuthorizationQueryParametersError", "401"),
    }
)
_ASKED_FOR_CREDENTIALS: Final = re.compile(
    r"Assume\w+|GetSessionToken|GetFederationToken|GetRoleCredentials|GetCallerIdentity"
    r"|CreateToken\w*|RegisterClient|CreateOAuth2Token|GetCredentialsForIdentity|GetId"
)
"""Operations of the SDK's own, in the middle of any call of ours."""

_OUR_TABLES: Final = re.compile(
    r"specified index|backfilling|index .{0,300}(not (have|found|exist|active)|being)"
    r"|query condition missed key|provided key element does not match|resource policy",
    re.IGNORECASE | re.DOTALL,
)
"""In DynamoDB's words: the table or index is not as ``init`` makes it, or not yet."""
_OUR_NAMES: Final = re.compile(
    r"topic ?arn|target ?arn|queue ?(url|name|arn)|\bendpoint\b|wait ?time|visibility ?time",
    re.IGNORECASE,
)
"""In the words of SQS and SNS: not the message is wrong, but where we send it or how we ask."""

_OUR_MAIL: Final = re.compile(
    r"verif|authori|identit|account|suspend|paus|sandbox|configuration|permitted|quota|rate",
    re.IGNORECASE,
)
"""In the words of SES: not the mail is wrong, but who sends it, or how much."""

_ALLOW: Final = (
    "Allow it in the IAM policy of this host's role (and in the policy of the bucket, queue, topic or "
    "key)."
)
_INIT: Final = "Run `daylily-daemon init`, or correct the name and the region in the settings."
_ACCOUNT: Final = "Look into the AWS console: the account or the region is not ready for use."
_REGION: Final = "The bucket is in another region: correct the region in the settings."
_FITTING: Final = (
    "Its arguments do not fit: compare the settings with what `daylily-daemon init` made."
)
_ADVICE: Final[tuple[tuple[re.Pattern[str], str], ...]] = tuple(
    (re.compile(pattern, re.IGNORECASE), advice)
    for pattern, advice in (
        (
            r"^kms.*(disabled|invalidstate|notfound|pending|keyusage|optin|invalidkey)",
            "Look at the KMS key that encrypts this: it must exist, be enabled and be one we may use.",
        ),
        (r"denied|authoriz|^403$|allaccessdisabled|^forbidden|invalidpayer", _ALLOW),
        (r"^NoSuchBucket", "Create the bucket, or correct its name."),
        (r"^NoSuchKey|^NoSuchVersion|^404$", "Upload the object, or correct its name."),
        (
            r"^InvalidObjectState|ActiveTier",
            "The object is archived: restore it from Glacier, then try again.",
        ),
        (r"^InvalidBucketName", "Correct the name of the bucket."),
        (r"redirect|headermalformed|locationconstraint|^301$", _REGION),
        (r"notfound|nonexistentqueue|doesnotexist|tablenot|indexnot", _INIT),
        (r"inuse|notready", "It is being made or changed; that ends by itself within minutes."),
        (r"optin|suspended|subscription|accountproblem|notsignedup|regiondisabled", _ACCOUNT),
        (
            r"messagerejected|mailfromdomain|sendingpaused",
            "Verify the sender's address or domain in the SES console of this region, and leave its sandbox.",
        ),
        (r"^endpointdisabled|platformapplication", "Enable the endpoint in the SNS console."),
        (
            r"^400$",
            "S3 did not say why: look at the credentials and the clock of this host, and whether the "
            "object is encrypted with a key of a customer's own (SSE-C).",
        ),
        (r"^(Validation|InvalidParameter|MissingParameter)", _FITTING),
    )
)
_ASK: Final = "Look the code up in the AWS documentation."


def error_code(exc: ClientError) -> str:
    """Return the code in AWS's answer, ``NoSuchKey``; HEAD has only the status, ``404``."""
    return str(exc.response.get("Error", {}).get("Code", "") or "unknown")


def plain_code(code: str) -> str:
    """Return ``code`` without what services put around it: ``AWS.SimpleQueueService.``, ``Exception``.

    What KMS says through another service begins with ``Kms``.
    """
    prefix, _, rest = code.rpartition(".")
    if prefix.upper() == "KMS" and not rest.upper().startswith("KMS"):
        rest = f"Kms{rest}"
    return rest.removesuffix("Exception") or code


def meaning_of(operation: str, code: str, status: int = 400, words: str = "") -> Meaning:
    """Return what a refusal means; ``words`` are AWS's own, to tell apart what has one code only."""
    plain = plain_code(code)
    if is_about_credentials(operation, code):
        return Meaning.OURS
    if status == 429 or status >= 500:
        return Meaning.AGAIN
    # S3 answers HEAD by a bare status; anything else so short is the word of some proxy.
    bare = plain.isdecimal() and not operation.startswith("Head")
    if plain in _NO and not bare:
        ours = plain.startswith("Validation") and _OUR_TABLES.search(words)
        ours = ours or (plain.startswith("Invalid") and _OUR_NAMES.search(words[:WORDS_LIMIT]))
        ours = ours or (plain == "MessageRejected" and _OUR_MAIL.search(words[:WORDS_LIMIT]))
        return Meaning.OURS if ours else Meaning.NO
    return Meaning.AGAIN if _AGAIN.search(plain) else Meaning.OURS


def is_about_credentials(operation: str, code: str) -> bool:
    """Tell whether AWS does not accept who we say we are, or the SDK was refused new credentials."""
    asked = _ASKED_FOR_CREDENTIALS.fullmatch(operation)
    return asked is not None or plain_code(code) in _CREDENTIALS


def advice_on(code: str) -> str:
    """Return what to do about ``code``, as a sentence."""
    plain = plain_code(code)
    return next((advice for pattern, advice in _ADVICE if pattern.search(plain)), _ASK)


def shown(words: object, limit: int = WORDS_LIMIT) -> str:
    """Return another side's words on one line, without control characters, cut after ``limit``."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(words)[: 4 * limit]).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def every_no() -> Iterable[str]:
    """Return the codes that are a definite no."""
    return sorted(_NO)


def headers_of(exc: ClientError) -> Mapping[str, str]:
    return exc.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})

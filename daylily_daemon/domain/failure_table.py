"""What lines of a log mean: the codes of the system this one replaces (WS-RES-001 and so on), and some more.

``TOOLS`` is searched in what tools wrote, ``MANAGERS`` in what the workflow manager says by itself. The
first pattern that matches counts, so what is definite stands before what is vague. A pattern describes a
line that a program prints when it fails, never a mere name: samples and files may be called anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from daylily_daemon.domain.model import Category


@dataclass(frozen=True, slots=True)
class FailurePattern:
    pattern: str
    """Regular expression (``domain/patterns.py``), searched without regard to case."""
    code: str
    category: Category
    retry: bool
    meaning: str = ""
    ours: bool = False
    """Our own rights or credentials are missing: nobody's input is at fault, and it uses up no try."""


_R, _D, _T, _C, _P = (
    Category.RESOURCE,
    Category.DATA,
    Category.TRANSIENT,
    Category.CONFIGURATION,
    Category.PERMANENT,
)


def _aws(codes: str) -> str:
    """Return a pattern of AWS error codes as clients print them; alone they could be names."""
    return (
        rf"(?-i:\((?:{codes})\)|<Code>(?:{codes})<|Error Code: (?:{codes})\b"
        rf"|\b(?:{codes})(?:Exception)?(?:: |$)|\b(?:{codes})Exception\b)"
    )


_MEMORY: Final = "it ran out of memory"
_KILLED: Final = "a process was killed, as happens when memory runs out"
_NODE: Final = "a node of the cluster failed or was taken away"
_TIME: Final = "Slurm ended a job at its time limit"
_CANCELED: Final = "a Slurm job was canceled from outside"

TOOLS: Final = (
    FailurePattern(
        r"\bwas changed after it was checked\b", "WS-DAT-004", _D, False,
        "the input is not what was checked",
    ),
    FailurePattern(
        r"\bLeft out of the export: \d", "WS-EXP-001", _P, False,
        "results could not be exported, and nothing was deleted",
    ),
    FailurePattern(
        r"\bThey are never written over\. Name a place", "WS-EXP-002", _C, False,
        "the place for the results holds another workset's",
    ),
    FailurePattern(
        r"DUE TO TIME LIMIT\b", "WS-TIME-001", _P, False, _TIME,
    ),
    FailurePattern(
        r"\bout[- ]of[- ]memory\b|\boom[-_ ]?kill(ed|er|:| event)|cannot allocate memory|std::bad_alloc"
        r"|\bMemoryError\b|OutOfMemoryError\b|GC overhead limit exceeded|not enough memory"
        r"|exceeded (\w+ ){0,2}memory limit|(insufficient|failed to allocate) memory",
        "WS-RES-001", _R, True, _MEMORY,
    ),
    FailurePattern(
        r"no space left on device|quota exceeded|not enough (free |disk )+space|disk (is )?full\b"
        r"|\bENOSPC\b|\bEDQUOT\b",
        "WS-RES-002", _R, True, "a disk was full",
    ),
    FailurePattern(
        r"cpu time limit exceeded|\bSIGXCPU\b", "WS-RES-003", _R, True, "it used up its CPU time",
    ),
    FailurePattern(
        r"\bNODE_FAIL\b|node failure|DUE TO (JOB REQUEUE|PREEMPTION)", "WS-CLU-001", _T, True, _NODE,
    ),
    FailurePattern(
        r"(?-i:(RequestTimeout|RequestTimeoutException)\b)|(read|connect) timeout on endpoint"
        r"|could not connect to the endpoint URL"
        r"|(s3://|\bs3[.-][a-z0-9.-]*amazonaws|amazonaws\.com|(?-i:\bS3\b)).*"
        r"\btime[d ]?-?\s?out\b",
        "WS-NET-001", _T, True, "S3 did not answer in time",
    ),
    FailurePattern(
        r"connection refused|connection reset by peer|network is unreachable|no route to host"
        r"|connection timed out|could not resolve host|temporary failure in name resolution",
        "WS-NET-002", _T, True, "a connection was refused or cut",
    ),
    FailurePattern(
        r"(?-i:\b(ExpiredToken|ExpiredTokenException|InvalidClientTokenId|UnrecognizedClientException"
        r"|InvalidAccessKeyId|NoCredentialsError|CredentialRetrievalError|TokenRefreshRequired"
        r"|RequestExpired|UnauthorizedSSOTokenError)\b)"
        r"|token included in the request is (expired|invalid)|unable to locate credentials"
        r"|unable to load (aws )?credentials|provided token has expired|SSO session .*expired",
        "WS-AWS-003", _C, True,
        "the AWS credentials of the job were not valid, which those who run this daemon fix",
        ours=True,
    ),
    FailurePattern(
        r"(?-i:\bAccessDenied(Exception)?\b|\bUnauthorizedOperation\b|\bAuthorizationHeaderMalformed\b)"
        r"|(error|s3|amazon).*\baccess denied\b|not authorized to perform"
        r"|\((403|Forbidden)\) when calling the",
        "WS-AWS-002", _C, True,
        "AWS refused access, which those who run this daemon fix, not the lab", ours=True,
    ),
    FailurePattern(
        _aws("Throttling|ThrottledException|SlowDown|TooManyRequests|RequestLimitExceeded"
             "|RequestThrottled|ProvisionedThroughputExceeded|BandwidthLimitExceeded")
        + r"|\brate exceeded\b|reduce your request rate",
        "WS-AWS-001", _T, True, "AWS asked for fewer requests",
    ),
    FailurePattern(
        r"\b(invalid|truncated|malformed|corrupt(ed)?) fastq\b|fastq.* (is |looks |appears )?"
        r"(malformed|corrupt(ed)?|truncated)\b|not in gzip format|invalid compressed data"
        r"|(gzip|pigz|zcat|\.gz|\.fastq|\.fq)\b.*(unexpected end of file|crc error|premature end)"
        r"|(unexpected end of file|premature end).*(gzip|\.gz|fastq|fq)\b"
        r"|quality string.*length|sequence and quality .*(differ|mismatch|length)",
        "WS-DAT-001", _D, False, "a FASTQ file is damaged; replace it",
    ),
    FailurePattern(
        r"missing input files|no such file or directory.*\.f(ast)?q\b"
        r"|\.f(ast)?q(\.gz)?\b.*(no such file or directory|does not exist|not found)",
        "WS-DAT-002", _D, False, "an input file is missing",
    ),
    FailurePattern(
        r"\binvalid reference\b|\breference\b.*\b(not found|does not exist)\b"
        r"|fasta (index|dict|file).*\b(not found|does not exist)\b",
        "WS-DAT-003", _D, False, "the reference genome is not usable",
    ),
    FailurePattern(
        r"(?m:^\[E::(bwa|bns|mem|bwt)|^\[\w*(bwa|bns|bwt|mem)\w*\].*\b(fail|error|abort))"
        r"|(?m:^(\S*/)?bwa(-mem2)?\b.*(: |\b)(error|failed|fatal)\b)",
        "WS-PIP-001", _T, True, "BWA reported an error",
    ),
    FailurePattern(
        r"org\.broadinstitute\.[\w.$]+(Exception|Error)\b|\bat org\.broadinstitute\."
        r"|A USER ERROR has occurred|(?m:^(\S*/)?gatk\b.*(error|exception)\b)",
        "WS-PIP-002", _T, True, "GATK reported an error",
    ),
    FailurePattern(
        r"(?m:\bline \d+: +\d+ killed\b|^killed$)", "WS-RES-001", _R, True, _KILLED,
    ),
    FailurePattern(
        r"\*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT", "WS-JOB-003", _P, False, _CANCELED,
    ),
    FailurePattern(
        r"\b(slurm|sbatch|srun|salloc|slurmstepd): error|unable to contact slurm controller"
        r"|\bslurm_\w+ error\b|socket timed out on send/recv operation",
        "WS-CLU-002", _T, True, "Slurm reported an error",
    ),
)  # fmt: skip

_STATUS: Final = r"status(?: is:)? '"

MANAGERS: Final = (
    FailurePattern(
        r"directory cannot be locked|unable to acquire lock on session", "WS-PIP-003", _T, True,
        "its folder is locked by a run that was killed; daylily-omics removes such a lock when it "
        "tries again, for another pipeline run `snakemake --unlock` in that folder",
    ),
    FailurePattern(
        r"IncompleteFilesException|files below seem to be incomplete", "WS-PIP-004", _T, True,
        "files of a run that was killed are incomplete; daylily-omics makes them anew when it tries "
        "again, another pipeline needs `--rerun-incomplete`",
    ),
    FailurePattern(
        r"\bsnakemake: error: ", "WS-CFG-003", _C, False,
        "Snakemake does not accept its arguments; correct those of the run in daylily_work.yaml",
    ),
    FailurePattern(_STATUS + r"(TIMEOUT|DEADLINE)", "WS-TIME-001", _P, False, _TIME),
    FailurePattern(
        _STATUS + r"OUT_OF_ME|OutOfMemoryError|killed due to memory|\bOOMKilled\b",
        "WS-RES-001", _R, True, _MEMORY,
    ),
    FailurePattern(_STATUS + r"(NODE_FAIL|BOOT_FAIL|PREEMPTED|REVOKED)", "WS-CLU-001", _T, True, _NODE),
    FailurePattern(_STATUS + r"CANCELLED", "WS-JOB-003", _P, False, _CANCELED),
    FailurePattern(
        r"MissingInputException|missing input files", "WS-DAT-002", _D, False,
        "an input file is missing",
    ),
    FailurePattern(
        r"MissingOutputException|missing output file|output files are missing", "WS-PIP-005", _T, True,
        "a rule ended well without making its output",
    ),
    FailurePattern(
        r"died with <Signals\.SIGKILL|exit status (is )?\(?137\b", "WS-RES-001", _R, True, _KILLED,
    ),
    FailurePattern(
        r"error submitting jobscript|submission failed|sbatch failed", "WS-CLU-002", _T, True,
        "Slurm reported an error",
    ),
)  # fmt: skip

KNOWN: Final = (*TOOLS, *MANAGERS)

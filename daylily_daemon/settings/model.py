"""What can be set: every setting with its default, its limits, its meaning and its unit.

``config/default.yaml`` and the README's table are made from what stands here and in the models of
``notifications.py``, by ``make docs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from daylily_daemon.adapters.aws import DEFAULT_REGION
from daylily_daemon.domain.model import Category
from daylily_daemon.settings.fields import Section, clash, fixed, live
from daylily_daemon.settings.notifications import NotificationsSettings
from daylily_daemon.settings.types import (
    Absolute,
    Account,
    Bucket,
    Endpoint,
    FifoQueue,
    Host,
    Level,
    Prefix,
    Queue,
    Regex,
    Region,
    S3Folder,
    Table,
    TopicArn,
    TopicName,
    UserName,
    Variable,
    text,
)


class AwsSettings(Section):
    region: Region = fixed(
        DEFAULT_REGION,
        "AWS region of tables, queues, topic and buckets; where none is set, the profile's counts first.",
    )
    profile: str = fixed("", "Profile of the AWS configuration files; empty takes the usual chain.")
    endpoint_url: Endpoint = fixed(
        "",
        "Where AWS answers instead of its own addresses (emulators); AWS_ENDPOINT_URL_<SERVICE> and the "
        "profile's endpoint_url are obeyed too.",
    )


class ControlSettings(Section):
    bucket: Bucket = fixed("", "Bucket that worksets are dropped into; `run` needs it.")
    prefix: Prefix = fixed(
        "daylily_monitoring/active_worksets/", "Prefix of the drops; ends with a slash."
    )
    account_id: Account = fixed(
        "", "AWS account (12 digits) that events must come from; empty does not check."
    )


class TablesSettings(Section):
    worksets: Table = fixed("daylily-worksets", "DynamoDB table of the worksets.")
    events: Table = fixed("daylily-workset-events", "DynamoDB table of audit events and outbox.")
    control: Table = fixed(
        "daylily-control", "DynamoDB table of the daemons and what is asked of them."
    )
    state_index: Table = fixed(
        "state-priority-index",
        "Index of the worksets that versions before this one read; `init --drop-old-indexes` removes it.",
    )


class QueuesSettings(Section):
    intake: Queue = fixed("daylily-intake", "Standard queue that receives the S3 events.")
    commands: FifoQueue = fixed("daylily-commands.fifo", "FIFO queue of commands.")
    wait_s: int = fixed(20, "Longest wait of one receive, in seconds (0 to 20).", ge=0, le=20)
    visibility_s: int = fixed(
        60,
        "Time until an unsettled message comes again, in seconds (10 to 43200).",
        ge=10,
        le=43200,
    )
    old_s: float = fixed(
        300.0,
        "Age of a message beyond which `status` calls its queue old, in seconds (1 to 86400).",
        ge=1,
        le=86400,
    )
    max_receive: int = fixed(
        5, "Tries before a message moves to its dead-letter queue (1 to 1000).", ge=1, le=1000
    )


class TopicSettings(Section):
    sns_topic_arn: TopicArn = fixed("", "ARN of the topic; empty finds it by its name.")
    sns_topic_name: TopicName = fixed(
        "daylily-notifications", "Name of the topic that `init` makes."
    )


class DaemonSettings(Section):
    name: Host = fixed("", "Name of this daemon for people; empty takes the host name.")
    machine: Host = fixed(
        "",
        "Name of this machine, only where no cloud gives it an id and a restart shall be recognised; it must "
        "differ on every machine, so never put it into an image.",
    )
    state_dir: Absolute = fixed(
        Path("/var/lib/daylily-daemon"),
        "Local folder of lock, sockets and ids; systemd's STATE_DIRECTORY replaces this default.",
    )
    data_dir: Absolute = fixed(
        Path("/fsx/data/worksets"), "Folder of staged inputs, work and results, one a workset."
    )
    max_worksets: int = live(
        8, "Worksets that run at once (0 to 1000; 0 starts none).", ge=0, le=1000
    )
    max_per_customer: int = live(
        0, "Worksets of one customer that run at once; 0 for no limit.", ge=0
    )
    age_s: float = live(
        129_600,
        "Waiting time after which low priority counts as normal, in seconds; longer than a run.",
        gt=0,
    )
    urgent_customers: tuple[str, ...] = live(
        ("*",),
        "Customers whose recipes may ask for priority urgent, as patterns; * is everybody, empty nobody.",
    )
    cluster: Host = fixed(
        "",
        "Cluster this daemon serves; worksets for others wait. Empty: that of this ParallelCluster node.",
    )
    min_free_gb: float = live(
        1.0,
        "Room on the disks of state_dir and data_dir, in GB, below which nothing new starts; 0 for no check.",
        ge=0,
    )
    sweep_s: float = live(15, "Time between two looks at the tables, in seconds.", gt=0, le=3600)
    reconcile_s: float = live(
        600, "Time between two listings of the prefix for missed events, in seconds.", gt=0
    )
    stop_deadline_s: float = fixed(
        20, "Longest time from SIGTERM to the end of the daemon, in seconds (1 to 40).", ge=1, le=40
    )


class LeaseSettings(Section):
    ttl_s: float = fixed(120, "Life of a claim without a heartbeat, in seconds.", gt=0, le=3600)
    margin_s: float = fixed(
        10, "Time before its end at which a claim is given up, in seconds.", gt=0
    )
    beat_s: float = fixed(
        30, "Time between two heartbeats, in seconds; below ttl_s - margin_s.", gt=0
    )

    @model_validator(mode="after")
    def _beats_in_time(self) -> Self:
        if self.beat_s >= self.ttl_s - self.margin_s:
            room = f"{self.ttl_s:g} s - {self.margin_s:g} s"
            problem = f"beat_s is {self.beat_s:g} s, but must be below ttl_s - margin_s = {room}"
            raise clash(problem, "beat_s", "ttl_s", "margin_s")
        return self


class InputsSettings(Section):
    wait_s: float = live(120, "Time that the files of a drop may still take, in seconds.", ge=0)
    poll_s: float = live(5, "Time between two looks for missing files, in seconds.", gt=0)
    local_roots: tuple[Absolute, ...] = fixed(
        (Path("/fsx"),), "Folders of this host whose files a sheet may name as input."
    )


class PlacesSettings(Section):
    inputs: tuple[S3Folder, ...] = fixed(
        (),
        "Folders in S3 that sheets may name inputs of, besides the workset's own: "
        "s3://bucket/prefix/; empty for all the daemon's role may read.",
    )
    exports: tuple[S3Folder, ...] = fixed(
        (),
        "Folders in S3 that recipes may export to, besides results/ of the workset's own: "
        "s3://bucket/prefix/; empty for all the daemon's role may write.",
    )
    shared_results: Literal["folder", "refuse"] = live(
        "folder",
        "What an export does where another workset's results are: folder (one of the workset's name "
        "below that place) or refuse.",
    )


RunnerKind = Literal["auto", "tmux", "process"]


class RunnerSettings(Section):
    kind: RunnerKind = fixed(
        "auto", "What runs the jobs: auto (tmux if installed), tmux or process."
    )
    isolation: Literal["auto", "session", "systemd"] = fixed(
        "auto",
        "What a job lives in: auto (systemd if it can), session, or systemd (a unit of its own).",
    )
    user: UserName = fixed(
        "",
        "User whom jobs run as, in units of their own, if the daemon is root; empty for the daemon's user.",
    )
    writable: tuple[Absolute, ...] = fixed(
        (),
        "Folders that jobs of runner.user may write to, besides that of their run and a /tmp of their own.",
    )
    grace_s: float | None = live(
        None,
        "Time between the polite and the hard end of a job, in seconds (0 to 3600), "
        "instead of what its pipeline says.",
        ge=0,
        le=3600,
    )
    pass_environment: tuple[Variable, ...] = fixed(
        (
            *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR", "AWS_*"),
            *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"),
        ),
        "Variables of the daemon that jobs see; a name that ends with * is a prefix.",
    )

    @model_validator(mode="after")
    def _separates(self) -> Self:
        if self.user and self.isolation == "session":
            raise clash(
                "jobs run as another user in units of their own alone: set isolation to systemd, or "
                "leave user empty",
                "user",
                "isolation",
            )
        if self.writable and not self.user:
            raise clash("this is for jobs of another user: set runner.user too", "writable")
        return self


class PipelinesSettings(Section):
    dir: str = live("", "Folder of the pipeline files; empty takes the shipped ones.")
    default: str = live("daylily-omics", "Pipeline of a recipe that names none.")


class RetryPattern(Section):
    pattern: Regex
    code: Annotated[str, text(r"[\w-]{1,40}", "a short code such as LAB-NET-001")]
    category: Category
    retry: bool
    meaning: str = ""


class RetrySettings(Section):
    max_retries: int = live(
        2, "Further tries after a failure that may pass (0 to 100).", ge=0, le=100
    )
    base_s: float = live(60, "Pause before the first further try, in seconds; doubles.", gt=0)
    cap_s: float = live(3600, "Longest pause between two tries, in seconds.", gt=0)
    patterns: tuple[RetryPattern, ...] = live(
        (),
        "Patterns over the log tail, before the built-in ones: "
        "a list of pattern, code, category, retry, meaning.",
        max_length=100,
    )

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.base_s > self.cap_s:
            problem = f"base_s is {self.base_s:g} s, but must not be above cap_s = {self.cap_s:g} s"
            raise clash(problem, "base_s", "cap_s")
        return self


class ProgressSettings(Section):
    interval_s: float = live(
        30,
        "Time between two looks into a job's log, in seconds; what is seen rides on the next heartbeat.",
        gt=0,
        le=3600,
    )


class LogSettings(Section):
    level: Level = live("info", "Minimum level logged: debug, info, warning or error.")
    format: Literal["auto", "json", "console"] = fixed(
        "auto", "auto (console on a terminal, else json), json or console."
    )


class MetricsSettings(Section):
    port: int = fixed(
        0, "Port for Prometheus on 127.0.0.1 (0 to 65535; 0 for none).", ge=0, le=65535
    )


class CloudWatchSettings(Section):
    enabled: bool = live(
        False, "Whether figures are sent to CloudWatch, once a minute; its metrics cost money."
    )


class Settings(BaseSettings):
    """Everything that can be set. The process's own environment is never read behind anybody's back."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    aws: AwsSettings = AwsSettings()
    control: ControlSettings = ControlSettings()
    tables: TablesSettings = TablesSettings()
    queues: QueuesSettings = QueuesSettings()
    topic: TopicSettings = TopicSettings()
    daemon: DaemonSettings = DaemonSettings()
    lease: LeaseSettings = LeaseSettings()
    inputs: InputsSettings = InputsSettings()
    places: PlacesSettings = PlacesSettings()
    runner: RunnerSettings = RunnerSettings()
    pipelines: PipelinesSettings = PipelinesSettings()
    retry: RetrySettings = RetrySettings()
    progress: ProgressSettings = ProgressSettings()
    notifications: NotificationsSettings = NotificationsSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    cloudwatch: CloudWatchSettings = CloudWatchSettings()

    def __init__(self, *sources: PydanticBaseSettingsSource) -> None:
        """Take what ``sources`` give, strongest first; without any, the defaults."""
        super().__init__(_build_sources=(sources, {}))

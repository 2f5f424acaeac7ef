"""What can be set: every setting with its default, its limits, its meaning and its unit.

A field is ``live`` (a reload changes it) or ``fixed`` (it keeps its value until the daemon starts again).
``config/default.yaml`` and the README's table are made from what stands here, by ``make docs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from daylily_daemon.adapters.aws import DEFAULT_REGION
from daylily_daemon.domain.model import Category, Priority, RecordType, State
from daylily_daemon.settings.types import (
    Absolute,
    Account,
    Bucket,
    Endpoint,
    EventType,
    FifoQueue,
    Host,
    Level,
    MailAddress,
    MailHost,
    PostUrl,
    Prefix,
    Queue,
    Regex,
    Region,
    S3Folder,
    SecretUrl,
    Table,
    TopicArn,
    TopicName,
    UserName,
    Variable,
    is_this_machine,
    text,
)


def live(default: Any, meaning: str, **limits: Any) -> Any:
    """Declare a setting that a reload may change."""
    return Field(default, description=meaning, **limits)


def fixed(default: Any, meaning: str, **limits: Any) -> Any:
    """Declare a setting that keeps its value until the daemon starts again."""
    return Field(default, description=meaning, json_schema_extra={"restart": True}, **limits)


def _clash(message: str, *keys: str) -> PydanticCustomError:
    """Return the error of fields that do not go together; its place is that of the first one set."""
    return PydanticCustomError("clash", "{message}", {"message": message, "keys": keys})


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
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
            raise _clash(problem, "beat_s", "ttl_s", "margin_s")
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
            raise _clash(
                "jobs run as another user in units of their own alone: set isolation to systemd, or "
                "leave user empty",
                "user",
                "isolation",
            )
        if self.writable and not self.user:
            raise _clash("this is for jobs of another user: set runner.user too", "writable")
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
            raise _clash(problem, "base_s", "cap_s")
        return self


class ProgressSettings(Section):
    interval_s: float = live(
        30,
        "Time between two looks into a job's log, in seconds; what is seen rides on the next heartbeat.",
        gt=0,
        le=3600,
    )


class ChannelSettings(Section):
    needs: ClassVar[tuple[str, ...]] = ()

    enabled: bool = live(False, "Whether this channel is told.")
    event_types: tuple[EventType, ...] = live(
        (), "Only these event types: state_change, error, completion, lock_timeout; empty for all."
    )
    states: tuple[State, ...] = live((), "Only worksets in these states; empty for all.")
    priorities: tuple[Priority, ...] = live(
        (), "Only these priorities: urgent, normal, low; empty for all."
    )
    customers: tuple[str, ...] = live((), "Only worksets of these customers; empty for all.")

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        missing = [name for name in self.needs if not getattr(self, name).get_secret_value()]
        if self.enabled and missing:
            names = " and ".join(f"{name} (or {name}_file)" for name in missing)
            raise _clash(f"the channel is enabled, but {names} has no value", "enabled", *missing)
        return self


class SnsSettings(ChannelSettings):
    enabled: bool = live(True, "Whether this channel is told.")


class SentinelsSettings(ChannelSettings):
    enabled: bool = live(True, "Whether sentinel files are written for readers of the old system.")


class SlackSettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("webhook_url",)

    webhook_url: SecretUrl = live(SecretStr(""), "Address of the incoming webhook (secret).")
    webhook_url_file: str = live("", "File that holds webhook_url.")


class LinearSettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("api_key", "team_id")

    event_types: tuple[EventType, ...] = live(
        (RecordType.ERROR, RecordType.COMPLETION),
        "Only these event types: state_change, error, completion, lock_timeout; empty for all.",
    )
    api_key: SecretStr = live(SecretStr(""), "Key of the Linear API (secret).")
    api_key_file: str = live("", "File that holds api_key.")
    team_id: SecretStr = live(SecretStr(""), "Team whose board gets the issues (kept secret).")
    team_id_file: str = live("", "File that holds team_id.")


class WebhookSettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("url",)

    url: SecretUrl = live(SecretStr(""), "Address that is posted to (secret).")
    url_file: str = live("", "File that holds url.")
    secret: SecretStr = live(
        SecretStr(""), "Key that signs each delivery (secret); empty signs none."
    )
    secret_file: str = live("", "File that holds secret.")


class EmailSettings(ChannelSettings):
    event_types: tuple[EventType, ...] = live(
        (RecordType.ERROR, RecordType.COMPLETION),
        "Only these event types: state_change, error, completion, lock_timeout; empty for all.",
    )
    via: Literal["smtp", "ses"] = live(
        "smtp", "What sends the mail: smtp (a mail server) or ses (Amazon SES, by the host's role)."
    )
    sender: MailAddress = live("", "Address that mails come from; with SES a verified one.")
    recipients: tuple[MailAddress, ...] = live(
        (), "Addresses that mails go to (at most 50); all of them see each other.", max_length=50
    )
    smtp_host: MailHost = live("", "Name of the mail server; its certificate must be for it.")
    smtp_port: int = live(
        0,
        "Port of the mail server (0 to 65535); 0 takes the usual one of smtp_security: 587, 465 or 25.",
        ge=0,
        le=65535,
    )
    smtp_security: Literal["starttls", "tls", "none"] = live(
        "starttls",
        "starttls (TLS after the greeting, or nothing is sent), tls (from the start) or none.",
    )
    smtp_user: str = live("", "User for the login at the mail server; empty for no login.")
    smtp_password: SecretStr = live(SecretStr(""), "Password for the login (secret).")
    smtp_password_file: str = live("", "File that holds smtp_password.")

    @model_validator(mode="after")
    def _can_send(self) -> Self:
        needed = ("sender", "recipients", *(["smtp_host"] if self.via == "smtp" else []))
        missing = [name for name in needed if not getattr(self, name)]
        if self.enabled and missing:
            names = " and ".join(missing)
            raise _clash(f"the channel is enabled, but {names} has no value", "enabled", *missing)
        return self

    @model_validator(mode="after")
    def _logs_in_safely(self) -> Self:
        password = bool(self.smtp_password.get_secret_value())
        if self.enabled and password != bool(self.smtp_user):
            problem = "a login takes both smtp_user and smtp_password (or smtp_password_file)"
            raise _clash(problem, "smtp_user", "smtp_password")
        in_clear = self.smtp_security == "none" and not is_this_machine(self.smtp_host)
        if self.enabled and password and in_clear:
            problem = (
                "smtp_security is none, and the password would be sent for everybody to read; set it to "
                "starttls or tls, or log in nowhere"
            )
            raise _clash(problem, "smtp_security", "smtp_password")
        return self


class PagerDutySettings(ChannelSettings):
    needs: ClassVar[tuple[str, ...]] = ("routing_key",)

    routing_key: SecretStr = live(
        SecretStr(""), "Integration key of a service's Events API v2 integration (secret)."
    )
    routing_key_file: str = live("", "File that holds routing_key.")
    url: PostUrl = live(
        "https://events.pagerduty.com/v2/enqueue",
        "Address of the Events API; accounts in the EU have https://events.eu.pagerduty.com/v2/enqueue.",
    )


class NotificationsSettings(Section):
    sns: SnsSettings = SnsSettings()
    s3_sentinels: SentinelsSettings = SentinelsSettings()
    slack: SlackSettings = SlackSettings()
    linear: LinearSettings = LinearSettings()
    webhook: WebhookSettings = WebhookSettings()
    email: EmailSettings = EmailSettings()
    pagerduty: PagerDutySettings = PagerDutySettings()
    give_up_s: float = live(
        86400, "Age at which a notice that its channel never took is given up, in seconds.", gt=0
    )

    @property
    def channels(self) -> dict[str, ChannelSettings]:
        """Every channel by its name, switched on or not."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in found if isinstance(value, ChannelSettings)}


class LogSettings(Section):
    level: Level = live("info", "Minimum level logged: debug, info, warning or error.")
    format: Literal["auto", "json", "console"] = fixed(
        "auto", "auto (console on a terminal, else json), json or console."
    )


class MetricsSettings(Section):
    port: int = fixed(
        0, "Port for Prometheus on 127.0.0.1 (0 to 65535; 0 for none).", ge=0, le=65535
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

    def __init__(self, *sources: PydanticBaseSettingsSource) -> None:
        """Take what ``sources`` give, strongest first; without any, the defaults."""
        super().__init__(_build_sources=(sources, {}))

"""A user of an emulator that enforces IAM, whose rights are taken away and given back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "dynamodb:GetItem": (),
    "dynamodb:BatchGetItem": (),
    "dynamodb:Query": (),
    "dynamodb:PutItem": ("dynamodb:TransactWriteItems",),
    "dynamodb:UpdateItem": (),
    "sqs:ReceiveMessage": (),
    "sqs:SendMessage": ("sqs:SendMessageBatch",),
    "sqs:DeleteMessage": ("sqs:DeleteMessageBatch",),
    "s3:GetObject": (),
    "s3:PutObject": (),
    "s3:DeleteObject": (),
    "s3:ListBucket": (),
    "sns:Publish": (),
    "ses:SendEmail": ("ses:SendRawEmail",),
    "cloudwatch:PutMetricData": (),
}
"""What docs/operations.md gives the role for running, each with what ministack asks for in its place."""
KEYS: Final = "[{}]\naws_access_key_id = {}\naws_secret_access_key = {}\n"


@dataclass(kw_only=True)
class Role:
    """The daemon's user, and what it may do now."""

    iam: Any
    name: str = "daemon"
    denied: str = ""
    actions: tuple[str, ...] = tuple(ACTIONS)

    async def without(self, action: str) -> None:
        self.denied = action
        await self.only(*(name for name in self.actions if name != action))

    async def only(self, *actions: str) -> None:
        policy = self.policy(*actions)
        await self.iam.put_user_policy(UserName=self.name, PolicyName="run", PolicyDocument=policy)

    @staticmethod
    def policy(*actions: str) -> str:
        given = [a for name in actions for a in (name, *ACTIONS.get(name, ()))]
        statement = {"Effect": "Allow", "Action": given, "Resource": "*"}
        return json.dumps({"Version": "2012-10-17", "Statement": [statement]})

"""The second home: the alarm handler of readings.py as an AWS Lambda function behind a Kafka event source mapping.

Handler setting: lambda_function.alarm. Consumer group of the mapping: cryostat.alarm, so that the handler keeps its place
when it moves here from a worker. Function response types: ReportBatchItemFailures. The batch handler stays at the edge,
where its database is.
"""

from readings import app

from octopus.triggers.aws import handler

alarm = handler(app, only=["alarm"])

"""The saga as a state machine of AWS Step Functions, with workers of ours on SQS queues: on AWS, or on moto."""

"""The saga as a state machine of AWS Step Functions, with our workers on SQS queues: on AWS, or on moto."""

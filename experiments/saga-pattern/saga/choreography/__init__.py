"""The order saga without anybody in charge: four services that hear each other's events over Kafka, and react."""

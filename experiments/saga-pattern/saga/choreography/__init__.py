"""The order saga with nobody in charge: four services that react to each other's events over Kafka."""

"""Produces events with confluent-kafka: produce.py BROKERS TOPIC, and on standard
input a JSON list of batches {"compression": …, "end": "commit", "abort" or "", "records":
[{"partition": …, "key": …, "value": …, "headers": [[name, value], …]}]}, with keys and values in
base64 or null. A batch with an end is a transaction. Prints the offsets of each batch
as a line of JSON."""

import base64
import json
import sys
import uuid

from confluent_kafka import Producer


def data(text):
    return None if text is None else base64.b64decode(text)


def main():
    brokers, topic = sys.argv[1:]
    for batch in json.load(sys.stdin):
        config = {"bootstrap.servers": brokers, "compression.type": batch["compression"], "linger.ms": 50}
        if batch["end"]:
            config["transactional.id"] = str(uuid.uuid4())
        producer = Producer(config)
        if batch["end"]:
            producer.init_transactions(30)
            producer.begin_transaction()
        offsets = [None] * len(batch["records"])
        failed = []

        def delivered(error, message, i):
            if error:
                failed.append(error)
            offsets[i] = message.offset()

        for i, r in enumerate(batch["records"]):
            producer.produce(topic, partition=r["partition"], key=data(r["key"]), value=data(r["value"]),
                             headers=[(name, data(v)) for name, v in r["headers"] or []],
                             on_delivery=lambda error, message, i=i: delivered(error, message, i))
        left = producer.flush(30)
        if failed or left:
            sys.exit(f"{left} records were not produced, {failed}")
        if batch["end"] == "commit":
            producer.commit_transaction(30)
        elif batch["end"]:
            producer.abort_transaction(30)
        print(json.dumps(offsets), flush=True)


main()

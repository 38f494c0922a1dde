"""Reads topics with one Python client: read.py CLIENT BROKERS PARTITIONS, and on
standard input a JSON list of {"topic": …, "isolation": … or null}, null being the
client's default. Prints each record as a line of JSON, texts in base64. A read ends
when every partition has returned its end mark, or with an error."""

import asyncio
import base64
import json
import sys
import uuid
from importlib.metadata import version

END = b"end-of-partition"


class Read:
    """What one read has returned so far."""

    def __init__(self, number, partitions):
        self.number, self.left = number, partitions

    def record(self, partition, offset, key, value, headers):
        show(read=self.number, partition=partition, offset=offset, key=text(key), value=text(value),
             headers=[[text(name.encode()), text(v)] for name, v in headers or []])
        if key == END:
            self.left -= 1


def show(**line):
    print(json.dumps(line), flush=True)


def text(data):
    return None if data is None else base64.b64encode(data).decode()


def confluent_kafka(brokers, topic, isolation, partitions, read):
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    config = {"bootstrap.servers": brokers, "group.id": str(uuid.uuid4())}
    if isolation:
        config["isolation.level"] = isolation
    consumer = Consumer(config)
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
    while read.left:
        message = consumer.poll(10)
        if message is None:
            raise TimeoutError("nothing came for ten seconds")
        if message.error():
            raise RuntimeError(message.error())
        read.record(message.partition(), message.offset(), message.key(), message.value(), message.headers())
    consumer.close()


def kafka_python(brokers, topic, isolation, partitions, read):
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest",
                             **({"isolation_level": isolation} if isolation else {}))
    consumer.assign([TopicPartition(topic, p) for p in range(partitions)])
    while read.left:
        batches = consumer.poll(timeout_ms=10_000)
        if not batches:
            raise TimeoutError("nothing came for ten seconds")
        for batch in batches.values():
            for r in batch:
                read.record(r.partition, r.offset, r.key, r.value, r.headers)
    consumer.close()


def aiokafka(brokers, topic, isolation, partitions, read):
    asyncio.run(read_async(brokers, topic, isolation, partitions, read))


async def read_async(brokers, topic, isolation, partitions, read):
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, auto_offset_reset="earliest",
                                **({"isolation_level": isolation} if isolation else {}))
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, p) for p in range(partitions)])
        while read.left:
            r = await asyncio.wait_for(consumer.getone(), 10)
            read.record(r.partition, r.offset, r.key, r.value, r.headers)
    finally:
        await consumer.stop()


def main():
    client, brokers, partitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
    run = {"confluent-kafka": confluent_kafka, "kafka-python": kafka_python, "aiokafka": aiokafka}[client]
    show(version=version(client))
    for number, wanted in enumerate(json.load(sys.stdin)):
        try:
            run(brokers, wanted["topic"], wanted["isolation"], partitions, Read(number, partitions))
        except Exception as e:
            show(read=number, error=f"{type(e).__name__}: {e}")


main()

"""Reads topics with confluent-kafka's deserializers for a schema registry: read.py
BROKERS, and on standard input {"descriptor": …, "reads": [{"topic": …, "format": …,
"registry": …}]} in JSON. The descriptor is that of the schema in Protocol Buffers, in
base64. Prints a line of JSON for each record; a read ends at the end of its topic, or
with an error."""

import base64
import json
import sys
import uuid
from importlib.metadata import version

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def message_class(descriptor):
    """Returns the class that protoc would generate."""
    pool = descriptor_pool.DescriptorPool()
    file = pool.AddSerializedFile(base64.b64decode(descriptor))
    return message_factory.GetMessageClass(next(iter(file.message_types_by_name.values())))


def fields(message):
    def value(field):
        if field.is_repeated:
            return list(getattr(message, field.name))
        if field.has_presence and not message.HasField(field.name):
            return None
        return getattr(message, field.name)

    return {field.name: value(field) for field in message.DESCRIPTOR.fields}


def read(brokers, topic, deserialize):
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": str(uuid.uuid4()), "enable.partition.eof": True})
    left = set(consumer.list_topics(topic).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in left])
    while left:
        message = consumer.poll(10)
        if message is None:
            raise TimeoutError("nothing came for ten seconds")
        if message.error() and message.error().code() == KafkaError._PARTITION_EOF:
            left.discard(message.partition())
        elif message.error():
            raise RuntimeError(message.error())
        else:
            context = SerializationContext(topic, MessageField.VALUE, message.headers())
            show(topic=topic, key=message.key().decode(), value=deserialize(message.value(), context))
    consumer.close()


def show(**line):
    print(json.dumps(line), flush=True)


def main():
    wanted = json.load(sys.stdin)
    record = message_class(wanted["descriptor"])
    show(version=version("confluent-kafka"))
    for r in wanted["reads"]:
        client = SchemaRegistryClient({"url": r["registry"]})
        protobuf = ProtobufDeserializer(record, {"use.deprecated.format": False}, client)
        deserialize = {
            "avro": AvroDeserializer(client),
            "json": JSONDeserializer(None, schema_registry_client=client),
            "protobuf": lambda value, context: fields(protobuf(value, context)),
        }[r["format"]]
        try:
            read(sys.argv[1], r["topic"], deserialize)
        except Exception as e:
            show(topic=r["topic"], error=f"{type(e).__name__}: {e}")


main()

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.Message;
import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import io.apicurio.registry.serde.jsonschema.JsonSchemaKafkaDeserializer;
import io.apicurio.registry.serde.protobuf.ProtobufKafkaDeserializer;
import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.avro.generic.IndexedRecord;
import org.apache.avro.Schema;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Reads topics with Apicurio's deserializers: Read.java BROKERS, with the input and the
 * output of read.py.
 */
public class Read {
  static final ObjectMapper JSON = new ObjectMapper();

  /** Stands for the class that protoc would generate. */
  public static class EnrichedRecord {
    static Descriptor descriptor;

    public static Message parseFrom(InputStream in) throws IOException {
      return DynamicMessage.parseFrom(descriptor, in);
    }
  }

  public static void main(String[] args) throws Exception {
    JsonNode wanted = JSON.readTree(System.in);
    FileDescriptorProto file = FileDescriptorProto.parseFrom(Base64.getDecoder().decode(wanted.get("descriptor").asText()));
    EnrichedRecord.descriptor = FileDescriptor.buildFrom(file, new FileDescriptor[0]).getMessageTypes().get(0);
    show(Map.of("version", version()));
    for (JsonNode r : wanted.get("reads")) {
      String topic = r.get("topic").asText();
      try {
        read(args[0], topic, r.get("format").asText(), r.get("registry").asText());
      } catch (Exception e) {
        StringBuilder causes = new StringBuilder();
        for (Throwable cause = e; cause != null; cause = cause.getCause()) {
          causes.append(cause).append("; ");
        }
        show(Map.of("topic", topic, "error", causes.toString()));
      }
    }
  }

  static void read(String brokers, String topic, String format, String registry) throws Exception {
    Map<String, Object> config = new HashMap<>(Map.of(
        "bootstrap.servers", brokers,
        "isolation.level", "read_committed",
        "key.deserializer", StringDeserializer.class,
        "apicurio.registry.url", registry,
        "apicurio.registry.as-confluent", true,
        "apicurio.registry.use-id", "contentId"));
    switch (format) {
      case "avro" -> config.put("value.deserializer", AvroKafkaDeserializer.class);
      case "json" -> config.put("value.deserializer", JsonSchemaKafkaDeserializer.class);
      default -> {
        config.put("value.deserializer", ProtobufKafkaDeserializer.class);
        config.put("apicurio.registry.deserializer.value.return-class", EnrichedRecord.class);
      }
    }
    try (KafkaConsumer<String, Object> consumer = new KafkaConsumer<>(config)) {
      List<TopicPartition> partitions =
          consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition())).toList();
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
      long deadline = System.nanoTime() + Duration.ofSeconds(20).toNanos();
      while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
        if (System.nanoTime() > deadline) {
          throw new IOException("the end did not come in twenty seconds");
        }
        for (var record : consumer.poll(Duration.ofSeconds(1))) {
          show(Map.of("topic", topic, "key", record.key(), "value", fields(record.value())));
        }
      }
    }
  }

  /** Returns a value as Jackson writes it. */
  static Object fields(Object value) {
    Map<String, Object> fields = new LinkedHashMap<>();
    if (value instanceof IndexedRecord record) {
      for (Schema.Field f : record.getSchema().getFields()) {
        fields.put(f.name(), plain(record.get(f.pos())));
      }
    } else if (value instanceof Message message) {
      for (FieldDescriptor f : message.getDescriptorForType().getFields()) {
        fields.put(f.getName(), f.hasPresence() && !message.hasField(f) ? null : plain(message.getField(f)));
      }
    } else {
      return value;
    }
    return fields;
  }

  static Object plain(Object value) {
    if (value instanceof List<?> list) {
      return list.stream().map(Read::plain).toList();
    }
    return value instanceof CharSequence ? value.toString() : value;
  }

  static String version() throws IOException {
    Properties properties = new Properties();
    try (InputStream in = Read.class.getResourceAsStream("/META-INF/maven/io.apicurio/apicurio-registry-serdes-avro-serde/pom.properties")) {
      properties.load(in);
    }
    return properties.getProperty("version");
  }

  static void show(Map<String, Object> line) throws IOException {
    System.out.println(JSON.writeValueAsString(line));
  }
}

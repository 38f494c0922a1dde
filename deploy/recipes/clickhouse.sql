-- ClickHouse: a row for each call. Its Kafka engine (librdkafka) reads committed
-- records only, by default. ReplacingMergeTree keeps one row of equal call_id, so that
-- duplicates in the topic disappear in a merge, and at once for queries with FINAL. Do
-- not partition it by a time: with --event-record two records of a call can differ in
-- theirs, and rows of two partitions are never merged.
--
-- Change: kafka_broker_list, kafka_topic_list.

CREATE TABLE calls
(
    call_id String,
    schema_version UInt16,
    revision UInt32, -- reserved: absent, and so 0 here, until corrections exist
    caller String,
    callees Array(String),
    media_type LowCardinality(String),
    call_type LowCardinality(String),
    result LowCardinality(String),
    room_id String,
    room_id_type UInt8,
    start_time DateTime('UTC'),
    accept_time Nullable(DateTime('UTC')),
    end_time DateTime('UTC'),
    answered Bool,
    ring_seconds Nullable(UInt32), -- NULL: cannot be computed, see anomalies
    talk_seconds Nullable(UInt32),
    total_seconds Nullable(UInt32),
    anomalies Array(LowCardinality(String))
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY call_id;

CREATE TABLE calls_queue AS calls
ENGINE = Kafka
SETTINGS
    kafka_broker_list = 'kafka:9092',
    kafka_topic_list = 'call-enriched',
    kafka_group_name = 'clickhouse',
    kafka_format = 'JSONEachRow',
    input_format_skip_unknown_fields = 1; -- new fields may be added at any time

CREATE MATERIALIZED VIEW calls_consumer TO calls AS
SELECT * FROM calls_queue;

-- Talk time of each caller and month:
--   SELECT caller, toStartOfMonth(end_time) AS month, sum(talk_seconds)
--   FROM calls FINAL GROUP BY caller, month;

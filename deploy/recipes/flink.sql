-- Flink SQL: talk seconds of each caller and day. The view keeps the first record of
-- each CallId, so that duplicates in the topic count once. Its state holds every CallId
-- for table.exec.state.ttl: as long as duplicates may come, a replay included.
--
-- Change: brokers and topic; the sink, for example to a table of JDBC with the primary
-- key (caller, day).

SET 'table.exec.state.ttl' = '14 d';

CREATE TABLE calls (
    call_id STRING,
    caller STRING,
    media_type STRING,
    end_time BIGINT,
    talk_seconds BIGINT, -- NULL: cannot be computed, see anomalies
    arrived AS PROCTIME()
) WITH (
    'connector' = 'kafka',
    'topic' = 'call-enriched',
    'properties.bootstrap.servers' = 'kafka:9092',
    'properties.group.id' = 'flink',
    'properties.isolation.level' = 'read_committed', -- not the default
    'scan.startup.mode' = 'earliest-offset',
    'format' = 'json'
);

CREATE VIEW distinct_calls AS
SELECT call_id, caller, media_type, end_time, talk_seconds
FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY call_id ORDER BY arrived) AS nth
    FROM calls
)
WHERE nth = 1;

CREATE TABLE talk_per_day (
    caller STRING,
    `day` DATE,
    talk_seconds BIGINT,
    PRIMARY KEY (caller, `day`) NOT ENFORCED
) WITH (
    'connector' = 'print'
);

INSERT INTO talk_per_day
SELECT caller, CAST(TO_TIMESTAMP_LTZ(end_time, 0) AS DATE), SUM(talk_seconds)
FROM distinct_calls
GROUP BY caller, CAST(TO_TIMESTAMP_LTZ(end_time, 0) AS DATE);

// Reads topics with kafkajs: read.js BROKERS PARTITIONS. Input and output are those
// of read.py.
const crypto = require("crypto");
const fs = require("fs");
const { Kafka, logLevel } = require("kafkajs");

const end = "end-of-partition";
const show = (line) => console.log(JSON.stringify(line));
const text = (data) => (data == null ? null : Buffer.from(data).toString("base64"));

// kafkajs has the headers as an object; an array stands for several of one name.
const pairs = (headers) =>
  Object.entries(headers || {}).flatMap(([name, v]) => (Array.isArray(v) ? v : [v]).map((one) => [text(name), text(one)]));

async function read(kafka, number, { topic, isolation }, partitions) {
  const options = { groupId: crypto.randomUUID(), retry: { retries: 0 }, maxWaitTimeInMs: 100 };
  if (isolation) options.readUncommitted = isolation !== "read_committed";
  const consumer = kafka.consumer(options);
  try {
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("not read within 20 seconds")), 20000);
      late.unref();
      consumer.on(consumer.events.CRASH, (e) => reject(e.payload.error));
      let left = partitions;
      consumer
        .run({
          eachMessage: async ({ partition, message: m }) => {
            show({ read: number, partition, offset: Number(m.offset), key: text(m.key), value: text(m.value), headers: pairs(m.headers) });
            if (m.key && m.key.toString() === end && --left === 0) resolve();
          },
        })
        .catch(reject);
    });
  } catch (e) {
    show({ read: number, error: `${e.name}: ${e.message}` });
  }
  await consumer.disconnect();
}

async function main() {
  const [brokers, partitions] = process.argv.slice(2);
  const kafka = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.NOTHING });
  show({ version: require("kafkajs/package.json").version });
  for (const [number, wanted] of JSON.parse(fs.readFileSync(0)).entries()) {
    await read(kafka, number, wanted, Number(partitions));
  }
}

main().then(() => process.exit(0));

package readers_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/test/kafka"
)

// endKey is the key of the last record of every partition, after which readers stop.
const endKey = "end-of-partition"

// read is a topic for a client to read. Isolation is nil for what the client does
// without being asked.
type read struct {
	Topic     string  `json:"topic"`
	Isolation *string `json:"isolation"`
}

// result is what a client returned of a topic.
type result struct {
	records []string // as describe has them
	err     string   // what the client raised; "": nothing
}

// client is a Kafka client that others have written.
type client struct {
	name string
	// uncommitted is whether the client returns records of aborted transactions
	// unless it is asked not to.
	uncommitted bool
	// phantoms is whether it returns them and transaction markers in any case.
	phantoms bool
	// emptyAsNull is whether it returns empty keys and values as null.
	emptyAsNull bool
	// codecs are those that it reads as it is installed, besides none and gzip.
	codecs []string
	// run reads topics one after another.
	run func(ctx context.Context, brokers string, reads []read) (version string, results []result, err error)
}

// clients returns all clients. Each installs what it needs when it runs.
func clients() []client {
	all := []string{"snappy", "lz4", "zstd"}
	return []client{
		{name: "Java console consumer", uncommitted: true, codecs: all, run: runJava},
		{name: "confluent-kafka", codecs: all, run: runPython("confluent-kafka")},
		{name: "kafka-python", uncommitted: true, run: runPython("kafka-python")},
		{name: "aiokafka", uncommitted: true, run: runPython("aiokafka")},
		{name: "kafkajs", run: runNode},
		{name: "sarama", uncommitted: true, codecs: all, run: runGo("sarama")},
		{name: "kafka-go", uncommitted: true, phantoms: true, emptyAsNull: true, codecs: all, run: runGo("kafka-go")},
	}
}

// describe returns all that a record has, except for its time.
func describe(r *kgo.Record) string {
	text := func(b []byte) string {
		if b == nil {
			return "null"
		}
		return strconv.Quote(string(b))
	}
	headers := make([]string, 0, len(r.Headers))
	for _, h := range r.Headers {
		headers = append(headers, h.Key+"="+text(h.Value))
	}
	slices.Sort(headers) // kafkajs does not keep their order
	return fmt.Sprintf("%d@%d %s: %s %s", r.Partition, r.Offset, text(r.Key), text(r.Value), strings.Join(headers, " "))
}

func runPython(name string) func(context.Context, string, []read) (string, []result, error) {
	return func(ctx context.Context, brokers string, reads []read) (string, []result, error) {
		dir, err := installPython(ctx, "requirements.txt")
		if err != nil {
			return "", nil, err
		}
		return runScript(pythonCommand(ctx, dir, "read.py", name, brokers, strconv.Itoa(partitions)), reads)
	}
}

func runNode(ctx context.Context, brokers string, reads []read) (string, []result, error) {
	dir, err := installNode(ctx)
	if err != nil {
		return "", nil, err
	}
	return runScript(nodeCommand(ctx, dir, "read.js", brokers, strconv.Itoa(partitions)), reads)
}

func runGo(name string) func(context.Context, string, []read) (string, []result, error) {
	return func(ctx context.Context, brokers string, reads []read) (string, []result, error) {
		dir, err := os.MkdirTemp("", "goclients")
		if err != nil {
			return "", nil, err
		}
		defer os.RemoveAll(dir)
		program := filepath.Join(dir, "goclients")
		build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
		build.Dir = "goclients"
		if _, err := runWith(build, nil); err != nil {
			return "", nil, fmt.Errorf("%w: %w", errMissing, err)
		}
		return runScript(exec.CommandContext(ctx, program, name, brokers, strconv.Itoa(partitions)), reads)
	}
}

// line is one that read.py, read.js and goclients print.
type line struct {
	Version    string
	Read       int
	Error      string
	Partition  int32
	Offset     int64
	Key, Value []byte
	Headers    [][2][]byte
}

// runScript runs a script that takes reads and prints lines.
func runScript(cmd *exec.Cmd, reads []read) (version string, results []result, err error) {
	input, err := json.Marshal(reads)
	if err != nil {
		return "", nil, err
	}
	out, err := runWith(cmd, input)
	if err != nil {
		return "", nil, err
	}
	results = make([]result, len(reads))
	for text := range bytes.Lines(out) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return "", nil, fmt.Errorf("%w: %s", err, text)
		}
		switch {
		case l.Version != "":
			version = l.Version
		case l.Error != "":
			results[l.Read].err = l.Error
		default:
			r := kgo.Record{Partition: l.Partition, Offset: l.Offset, Key: l.Key, Value: l.Value}
			for _, h := range l.Headers {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(h[0]), Value: h[1]})
			}
			results[l.Read].records = append(results[l.Read].records, describe(&r))
		}
	}
	return version, results, nil
}

// runWith runs a command with an input and returns what it prints.
func runWith(cmd *exec.Cmd, input []byte) ([]byte, error) {
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s%s", err, out, stderr.Bytes())
	}
	return out, nil
}

// What the console consumer prints between the parts of a record, and instead of null.
// None of it occurs in the test's records.
const fieldSeparator, headerSeparator, null = "\x1f", "\x1e", "<null>"

func runJava(ctx context.Context, brokers string, reads []read) (string, []result, error) {
	jars, err := kafka.Jars(ctx)
	if errors.Is(err, kafka.ErrMissing) {
		return "", nil, fmt.Errorf("%w: %w", errMissing, err)
	} else if err != nil {
		return "", nil, err
	}
	var results []result
	for _, want := range reads {
		r, err := runConsoleConsumer(ctx, jars, brokers, want)
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", want.Topic, err)
		}
		results = append(results, r)
	}
	return kafka.Version(), results, nil
}

// runConsoleConsumer runs the console consumer until it has printed the end of every
// partition; it does not stop by itself.
func runConsoleConsumer(ctx context.Context, jars, brokers string, want read) (result, error) {
	args := []string{"-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(jars, "*"), "org.apache.kafka.tools.consumer.ConsoleConsumer",
		"--bootstrap-server", brokers, "--topic", want.Topic, "--from-beginning"}
	if want.Isolation != nil {
		args = append(args, "--isolation-level", *want.Isolation)
	}
	for _, p := range []string{"print.partition=true", "print.offset=true", "print.headers=true", "print.key=true",
		"key.separator=" + fieldSeparator, "headers.separator=" + headerSeparator, "null.literal=" + null} {
		args = append(args, "--formatter-property", p)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(ctx, "java", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return result{}, err
	}
	if err := cmd.Start(); err != nil {
		return result{}, err
	}
	var r result
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 2<<20)
	left := partitions
	for left > 0 && lines.Scan() {
		record, err := consoleRecord(lines.Text())
		if err != nil {
			r.err = err.Error()
			break
		}
		r.records = append(r.records, describe(record))
		if string(record.Key) == endKey {
			left--
		}
	}
	stop()
	err = errors.Join(lines.Err(), cmd.Wait())
	if left > 0 && r.err == "" {
		return r, fmt.Errorf("ended early: %w\n%s", err, stderr.Bytes())
	}
	return r, nil // killed
}

// consoleRecord parses a line of the console consumer.
func consoleRecord(text string) (*kgo.Record, error) {
	fields := strings.Split(text, fieldSeparator)
	if len(fields) != 5 {
		return nil, fmt.Errorf("the line has %d fields: %q", len(fields), text)
	}
	partition, err1 := strconv.ParseInt(strings.TrimPrefix(fields[0], "Partition:"), 10, 32)
	offset, err2 := strconv.ParseInt(strings.TrimPrefix(fields[1], "Offset:"), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	data := func(text string) []byte {
		if text == null {
			return nil
		}
		return []byte(text)
	}
	r := &kgo.Record{Partition: int32(partition), Offset: offset, Key: data(fields[3]), Value: data(fields[4])}
	for header := range strings.SplitSeq(fields[2], headerSeparator) {
		if name, value, ok := strings.Cut(header, ":"); ok {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: data(value)})
		}
	}
	return r, nil
}

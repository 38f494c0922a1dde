// Command goclients reads topics with a Go client that enricher does not use:
// goclients CLIENT BROKERS PARTITIONS. Input and output are those of read.py.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
)

const (
	endKey = "end-of-partition"
	limit  = 20 * time.Second // for a partition
)

type line struct {
	Read      int         `json:"read"`
	Partition int32       `json:"partition"`
	Offset    int64       `json:"offset"`
	Key       []byte      `json:"key"`
	Value     []byte      `json:"value"`
	Headers   [][2][]byte `json:"headers"`
}

// reader reads one partition until show returns false.
type reader func(brokers []string, topic string, isolation *string, partition int32, show func(line) bool) error

var readers = map[string]struct {
	module string
	read   reader
}{
	"sarama":   {"github.com/IBM/sarama", readSarama},
	"kafka-go": {"github.com/segmentio/kafka-go", readKafkaGo},
}

func main() {
	if err := run(os.Args[1], strings.Split(os.Args[2], ","), os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(name string, brokers []string, partitions string) error {
	n, err := strconv.ParseInt(partitions, 10, 32)
	if err != nil {
		return err
	}
	var reads []struct {
		Topic     string
		Isolation *string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&reads); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]string{"version": version(readers[name].module)}); err != nil {
		return err
	}
	for i, r := range reads {
		for p := range int32(n) {
			show := func(l line) bool {
				l.Read, l.Partition = i, p
				return out.Encode(l) == nil && string(l.Key) != endKey
			}
			if err := readers[name].read(brokers, r.Topic, r.Isolation, p, show); err != nil {
				if err := out.Encode(map[string]any{"read": i, "error": err.Error()}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// version returns that of a module in this program.
func version(module string) string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == module {
				return d.Version
			}
		}
	}
	return "of an unknown version"
}

func readSarama(brokers []string, topic string, isolation *string, partition int32, show func(line) bool) error {
	config := sarama.NewConfig()
	if isolation != nil {
		config.Consumer.IsolationLevel = map[string]sarama.IsolationLevel{
			"read_committed": sarama.ReadCommitted, "read_uncommitted": sarama.ReadUncommitted,
		}[*isolation]
	}
	consumer, err := sarama.NewConsumer(brokers, config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	messages, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer messages.Close()
	for late := time.After(limit); ; {
		select {
		case m := <-messages.Messages():
			l := line{Offset: m.Offset, Key: m.Key, Value: m.Value}
			for _, h := range m.Headers {
				l.Headers = append(l.Headers, [2][]byte{h.Key, h.Value})
			}
			if !show(l) {
				return nil
			}
		case <-late:
			return fmt.Errorf("partition %d was not read within %v", partition, limit)
		}
	}
}

func readKafkaGo(brokers []string, topic string, isolation *string, partition int32, show func(line) bool) error {
	config := kafka.ReaderConfig{Brokers: brokers, Topic: topic, Partition: int(partition), MaxWait: 100 * time.Millisecond}
	if isolation != nil {
		config.IsolationLevel = map[string]kafka.IsolationLevel{
			"read_committed": kafka.ReadCommitted, "read_uncommitted": kafka.ReadUncommitted,
		}[*isolation]
	}
	reader := kafka.NewReader(config)
	defer reader.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		m, err := reader.ReadMessage(ctx)
		if err != nil {
			return err
		}
		l := line{Offset: m.Offset, Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			l.Headers = append(l.Headers, [2][]byte{[]byte(h.Key), h.Value})
		}
		if !show(l) {
			return nil
		}
	}
}

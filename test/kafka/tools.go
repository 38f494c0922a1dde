package kafka

import (
	"fmt"
	"os"
	"path/filepath"
)

// tools are the main classes of commands of a Kafka distribution, by name.
var tools = map[string]string{
	"kafka-acls":             "org.apache.kafka.tools.AclCommand",
	"kafka-configs":          "kafka.admin.ConfigCommand",
	"kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
	"kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
	"kafka-consumer-groups":  "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
	"kafka-topics":           "org.apache.kafka.tools.TopicCommand",
	"kafka-transactions":     "org.apache.kafka.tools.TransactionsCommand",
}

// Tools writes scripts that run Kafka's command-line tools, under the names of a
// Kafka distribution (NAME.sh), and returns their directory. Stop deletes them.
func (c *Cluster) Tools() (string, error) {
	bin := filepath.Join(c.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		return "", err
	}
	for name, class := range tools {
		script := fmt.Sprintf("#!/bin/sh\nexec java -Xmx256m -cp '%s' %s \"$@\"\n", filepath.Join(c.jars, "*"), class)
		if err := os.WriteFile(filepath.Join(bin, name+".sh"), []byte(script), 0o755); err != nil {
			return "", err
		}
	}
	return bin, nil
}

package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/fetch/lookup"
)

type role int

const (
	input role = iota
	enriched
	deadLetters
)

// topic is what is known about a topic of the service.
type topic struct {
	name       string
	role       role
	id         [16]byte
	partitions int
	copies     int // of the partition with the fewest
	inSync     int // likewise
	leaderless []int32
	behind     []int32 // partitions with copies that are not in sync
	settings   settings

	maxRecordBytes    int64 // that the service writes
	callEndTimestamps bool  // the service writes records with the time of a call's end
}

// checkTopics checks that each topic exists and is suitable for its role.
func (r *run) checkTopics(ctx context.Context) {
	r.topics = map[string]*topic{}
	var seen []*topic
	for _, m := range r.metadata.Topics {
		missing, denied, err := r.cfg.topic(&m)
		switch {
		case missing != nil:
			r.add(checkTopic, *m.Topic, Fatal, missing.found, missing.remedy)
		case err != nil && !errors.Is(err, kerr.LeaderNotAvailable): // that one is judged by partition
			r.add(checkTopic, *m.Topic, Fatal, err.Error(), "try again; if it persists, check the brokers' logs")
		case denied != nil && m.ErrorCode != 0:
			r.skip(checkTopic, *m.Topic, "not authorized to describe it")
		default:
			t := r.newTopic(&m)
			r.readSettings(ctx, t)
			seen = append(seen, t)
			r.topics[t.name] = t
		}
	}
	var inputs []*topic
	for _, t := range seen {
		if t.role == input {
			inputs = append(inputs, t)
		}
	}
	for _, t := range seen {
		t.judge(&r.Report, inputs)
	}
}

func (r *run) newTopic(m *kmsg.MetadataResponseTopic) *topic {
	t := &topic{name: *m.Topic, id: m.TopicID, partitions: len(m.Partitions), role: input, maxRecordBytes: int64(r.cfg.MaxRecordBytes)}
	if slices.Contains(r.cfg.Write, t.name) {
		t.role = enriched
		t.callEndTimestamps = r.cfg.CallEndTimestamps
	}
	if t.name == r.cfg.DeadLetterTopic {
		t.role, t.callEndTimestamps = deadLetters, false
	}
	for i, p := range m.Partitions {
		if i == 0 || len(p.Replicas) < t.copies {
			t.copies = len(p.Replicas)
		}
		if i == 0 || len(p.ISR) < t.inSync {
			t.inSync = len(p.ISR)
		}
		if p.Leader < 0 || errors.Is(kerr.ErrorForCode(p.ErrorCode), kerr.LeaderNotAvailable) {
			t.leaderless = append(t.leaderless, p.Partition)
		} else if len(p.ISR) < len(p.Replicas) {
			t.behind = append(t.behind, p.Partition)
		}
	}
	return t
}

// readSettings reads a topic's settings, which needs a permission that the service
// itself does not need. It requests one topic at a time, because one without the
// permission would hide the others.
func (r *run) readSettings(ctx context.Context, t *topic) {
	var got kadm.ResourceConfigs
	err := r.step(ctx, func(ctx context.Context) (err error) {
		got, err = kadm.NewClient(r.cl).DescribeTopicConfigs(ctx, t.name)
		return err
	})
	t.settings = newSettings(t.name, got, err)
}

// judge reports what is wrong with a topic. It is pure.
func (t *topic) judge(r *Report, inputs []*topic) {
	t.judgePartitions(r, inputs)
	t.judgeCopies(r)
	if t.settings.denied != "" {
		for _, check := range []string{checkMinISR, checkCleanup, checkMessageSize, checkRetention} {
			r.skip(check, t.name, "%s", t.settings.denied)
		}
		if t.callEndTimestamps {
			r.skip(checkTimestamps, t.name, "%s", t.settings.denied)
		}
		return
	}
	t.judgeMinISR(r)
	t.judgeCleanup(r)
	t.judgeMessageSize(r, inputs)
	t.judgeRetention(r)
	if t.callEndTimestamps {
		t.judgeTimestamps(r)
	}
}

func (t *topic) judgePartitions(r *Report, inputs []*topic) {
	most := 0
	for _, in := range inputs {
		most = max(most, in.partitions)
	}
	found := count(t.partitions, "partition")
	switch {
	case len(t.leaderless) > 0:
		r.add(checkTopic, t.name, Fatal, fmt.Sprintf("%s, of which %v have no leader: they can be neither read nor written", found, t.leaderless),
			"restart the brokers that have their replicas")
	case t.role == input && t.partitions == 1:
		r.add(checkTopic, t.name, Warning, found+": one instance does all the work, and others only stand by",
			"if one is not enough, add partitions with: kafka-topics --alter --topic "+t.name+" --partitions …")
	case t.role != input && most > 0:
		r.ok(checkTopic, t.name, "%s (input: %d)", found, most)
	default:
		r.ok(checkTopic, t.name, "%s", found)
	}
}

func (t *topic) judgeCopies(r *Report) {
	switch {
	case t.copies == 1:
		r.add(checkReplication, t.name, Warning, "one replica of a partition: it is lost with its broker",
			"use three replicas: kafka-reassign-partitions")
	case t.copies < 3:
		r.add(checkReplication, t.name, Warning,
			fmt.Sprintf("%d replicas of a partition: it cannot be both safe and writable while a broker is down", t.copies),
			"use three replicas: kafka-reassign-partitions")
	case len(t.behind) > 0:
		r.add(checkReplication, t.name, Warning, fmt.Sprintf("%d replicas, but not all are in sync for partitions %v", t.copies, t.behind),
			"find the broker that is down or slow")
	default:
		r.ok(checkReplication, t.name, "%d replicas", t.copies)
	}
}

func (t *topic) judgeMinISR(r *Report) {
	const check, setting = checkMinISR, "min.insync.replicas"
	n, ok := t.settings.number(setting)
	least := int(n)
	// The service writes to its outputs, and only reads its inputs.
	writes := Warning
	if t.role != input {
		writes = Fatal
	}
	alter := t.alter(setting, "2")
	switch {
	case !ok:
		r.notReported(check, t.name)
	case least > t.copies:
		r.add(check, t.name, writes, fmt.Sprintf("%d, more than there are replicas (%d): every write is rejected", least, t.copies), alter)
	case least > t.inSync:
		r.add(check, t.name, writes, fmt.Sprintf("%d, but some partition has only %s in sync: writes to it are rejected", least, count(t.inSync, "replica")),
			"restart the brokers that have the other replicas")
	case t.copies >= 2 && least == t.copies:
		r.add(check, t.name, Warning, fmt.Sprintf("%d, as many as there are replicas: no writes while any broker is down", least), alter)
	case t.copies >= 3 && least < 2:
		r.add(check, t.name, Warning, "1: acknowledged records are lost if the only broker that has them fails", alter)
	default:
		r.ok(check, t.name, "%d", least)
	}
}

// alter returns the command that changes a topic's setting.
func (t *topic) alter(setting, value string) string {
	return fmt.Sprintf("kafka-configs --alter --topic %s --add-config %s=%s", t.name, setting, value)
}

// settings are the settings of a topic or a broker.
type settings struct {
	values map[string]string
	denied string // why they could not be read; "" if they could
}

// newSettings takes the settings of one topic or broker out of a response.
func newSettings(name string, all kadm.ResourceConfigs, err error) settings {
	i := slices.IndexFunc(all, func(r kadm.ResourceConfig) bool { return r.Name == name })
	switch {
	case i >= 0 && all[i].Err == nil:
	case i >= 0:
		err = all[i].Err
	case err == nil:
		err = errNoBroker
	}
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return settings{denied: "not authorized to describe the configuration"}
	case err != nil:
		return settings{denied: "settings cannot be read: " + err.Error()}
	}
	s := settings{values: map[string]string{}}
	for _, c := range all[i].Configs {
		if c.Value != nil {
			s.values[c.Key] = *c.Value
		}
	}
	return s
}

// number returns a setting that is an integer, or false if the broker does not
// report it.
func (s settings) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(s.values[name], 10, 64)
	return n, err == nil
}

// retention returns how long a topic keeps its records, or false if it keeps them
// forever or the time is not known.
func (t *topic) retention() (time.Duration, bool) {
	ms, ok := t.settings.number("retention.ms")
	const longest = int64(time.Duration(1<<63-1) / time.Millisecond)
	if !ok || ms < 0 || ms > longest || !strings.Contains(t.settings.values["cleanup.policy"], "delete") {
		return 0, false
	}
	return time.Duration(ms) * time.Millisecond, true
}

func (t *topic) judgeCleanup(r *Report) {
	policy, ok := t.settings.values["cleanup.policy"]
	compacted := strings.Contains(policy, "compact")
	alter := t.alter("cleanup.policy", "delete")
	switch {
	case !ok:
		r.notReported(checkCleanup, t.name)
	case compacted && t.role == deadLetters:
		r.add(checkCleanup, t.name, Fatal, policy+": dead letters without a key are rejected, and only the last one of each key is kept", alter)
	case compacted && t.role == input:
		r.add(checkCleanup, t.name, Warning, policy+": an event is deleted as soon as another one has its key, read or not", alter)
	case compacted:
		r.ok(checkCleanup, t.name, "%s: the last record of each call is kept", policy)
	default:
		r.ok(checkCleanup, t.name, "%s", policy)
	}
}

// deadLetterHeaders is room for what a dead letter adds to its event, in bytes.
const deadLetterHeaders = 4096

func (t *topic) judgeMessageSize(r *Report, inputs []*topic) {
	const setting = "max.message.bytes"
	most := t.maxRecordBytes
	takes, ok := t.settings.number(setting)
	if !ok {
		r.notReported(checkMessageSize, t.name)
		return
	}
	if t.role == input {
		if takes > most {
			r.add(checkMessageSize, t.name, Warning,
				fmt.Sprintf("accepts events of up to %d bytes, but the service writes at most %d: the dead letter of a larger event contains only its position", takes, most),
				t.alter(setting, strconv.FormatInt(most, 10))+", or raise --batch-max-bytes")
		} else {
			r.ok(checkMessageSize, t.name, "%d bytes", takes)
		}
		return
	}
	var largest int64
	for _, in := range inputs {
		n, _ := in.settings.number(setting)
		largest = max(largest, n)
	}
	// The service never writes more, so a higher limit is useless.
	if wanted := min(largest+deadLetterHeaders, most); takes < wanted {
		why := "a large enriched record becomes a dead letter"
		if t.role == deadLetters {
			why = "the dead letter of a large event contains only its position"
		}
		r.add(checkMessageSize, t.name, Warning,
			fmt.Sprintf("%d bytes, less than the %d that an input topic accepts plus headers: %s", takes, largest, why),
			t.alter(setting, strconv.FormatInt(wanted, 10)))
		return
	}
	r.ok(checkMessageSize, t.name, "%d bytes", takes)
}

func (t *topic) judgeRetention(r *Report) {
	kept, limited := t.retention()
	bytes, _ := t.settings.number("retention.bytes")
	also := ""
	if bytes > 0 && strings.Contains(t.settings.values["cleanup.policy"], "delete") {
		also = fmt.Sprintf(", at most %d bytes per partition", bytes)
	}
	week := strconv.FormatInt(lookup.APIRetention.Milliseconds(), 10)
	switch {
	case !limited && t.settings.values["retention.ms"] == "":
		r.notReported(checkRetention, t.name)
	case !limited:
		r.ok(checkRetention, t.name, "forever%s", also)
	case t.role == deadLetters && kept < weekend:
		r.add(checkRetention, t.name, Warning, formatDuration(kept)+also+": a Friday dead letter is deleted before Monday",
			t.alter("retention.ms", week))
	case t.role == input && kept < weekend:
		r.add(checkRetention, t.name, Warning, formatDuration(kept)+also+": a weekend outage would lose events",
			t.alter("retention.ms", week)+"; the API keeps a call record for about 7 days, so longer is useless")
	default:
		r.ok(checkRetention, t.name, "%s%s", formatDuration(kept), also)
	}
}

package preflight

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/producer"
)

// settings are the values that a topic or a broker runs with.
type settings struct {
	values map[string]string
	denied string // why there are none; "" if they could be read
}

// newSettings takes the settings of one topic or broker out of an answer.
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
		return settings{denied: "no right to DescribeConfigs"}
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

// number is a setting that is a whole number; false: the broker does not tell.
func (s settings) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(s.values[name], 10, 64)
	return n, err == nil
}

// retention is how long a topic keeps what is written; false: for ever, or not
// known.
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
		r.untold(checkCleanup, t.name)
	case compacted && t.role == deadLetters:
		r.add(checkCleanup, t.name, Fatal, policy+": a letter without a key is refused, and of letters with the same key only the last is kept", alter)
	case compacted && t.role == input:
		r.add(checkCleanup, t.name, Warning, policy+": an event is gone as soon as another one has its key, read or not", alter)
	case compacted:
		r.ok(checkCleanup, t.name, "%s: the last record of each call is kept", policy)
	default:
		r.ok(checkCleanup, t.name, "%s", policy)
	}
}

// lettersHeaders is room for what a dead letter adds to its event.
const lettersHeaders = 4096

func (t *topic) judgeMessageSize(r *Report, inputs []*topic) {
	const setting, most = "max.message.bytes", int64(producer.DefaultMaxRecordBytes)
	takes, ok := t.settings.number(setting)
	if !ok {
		r.untold(checkMessageSize, t.name)
		return
	}
	if t.role == input {
		if takes > most {
			r.add(checkMessageSize, t.name, Warning,
				fmt.Sprintf("takes events of up to %d bytes, the service writes at most %d: the dead letter of a larger event only says where the event is", takes, most),
				t.alter(setting, strconv.FormatInt(most, 10)))
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
	// More than the service ever writes is of no use.
	if wanted := min(largest+lettersHeaders, most); takes < wanted {
		why := "a large enriched record becomes a dead letter"
		if t.role == deadLetters {
			why = "the dead letter of a large event only says where the event is"
		}
		r.add(checkMessageSize, t.name, Warning,
			fmt.Sprintf("%d bytes, less than the %d that an input takes and its headers: %s", takes, largest, why),
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
		also = fmt.Sprintf(", and at most %d bytes of a partition", bytes)
	}
	week := strconv.FormatInt(apiRetention.Milliseconds(), 10)
	switch {
	case !limited && t.settings.values["retention.ms"] == "":
		r.untold(checkRetention, t.name)
	case !limited:
		r.ok(checkRetention, t.name, "for ever%s", also)
	case t.role == deadLetters && kept < weekend:
		r.add(checkRetention, t.name, Warning, span(kept)+also+": letters of a Friday evening are gone on Monday",
			t.alter("retention.ms", week))
	case t.role == input && kept < weekend:
		r.add(checkRetention, t.name, Warning, span(kept)+also+": events are lost if the service stands still for a weekend",
			t.alter("retention.ms", week)+"; the API keeps a call for about 7 days, so more is of no use")
	default:
		r.ok(checkRetention, t.name, "%s%s", span(kept), also)
	}
}

package preflight

import (
	"fmt"
	"strconv"
	"time"

	"enricher/fetch/lookup"
)

const (
	// oldestCallEnd is how long ago a call may have ended when its record is written:
	// as long as the API keeps it, and a day, because "about seven days" is all that
	// the API says.
	oldestCallEnd = lookup.APIRetention + 24*time.Hour
	// clockDifference is how far the API's clock may be ahead of a broker's: more than
	// synchronised clocks ever differ.
	clockDifference = time.Minute
)

// judgeTimestamps reports whether a topic accepts and keeps records whose timestamp
// is the end of their call. Such a record may be a week old when it is written.
func (t *topic) judgeTimestamps(r *Report) {
	const before, after, difference = "message.timestamp.before.max.ms", "message.timestamp.after.max.ms", "message.timestamp.difference.max.ms"
	if t.settings.values["message.timestamp.type"] == "LogAppendTime" {
		r.add(checkTimestamps, t.name, Warning, "LogAppendTime: brokers replace the end of the call by the time at which they write the record",
			t.alter("message.timestamp.type", "CreateTime")+", or set --record-timestamp produced")
		return
	}
	ok := true
	refuse := func(setting string, limit time.Duration, what string) {
		ms, reported := t.settings.number(setting)
		if !reported || ms >= limit.Milliseconds() {
			return
		}
		ok = false
		r.add(checkTimestamps, t.name, Warning, fmt.Sprintf("%s is %s: records of %s are refused, and their events wait", setting, formatDuration(time.Duration(ms)*time.Millisecond), what),
			t.alter(setting, strconv.FormatInt(limit.Milliseconds(), 10)))
	}
	refuse(before, oldestCallEnd, "calls that ended earlier than that")
	refuse(after, clockDifference, "calls that ended later by the API's clock")
	if _, reported := t.settings.number(before); !reported { // before Kafka 3.6
		refuse(difference, oldestCallEnd, "calls that ended earlier than that")
	}
	if kept, limited := t.retention(); limited && kept <= oldestCallEnd {
		ok = false
		r.add(checkTimestamps, t.name, Warning,
			fmt.Sprintf("retention.ms is %s, counted from the end of a call: the record of a late event is deleted soon after it was written, or at once", formatDuration(kept)),
			t.alter("retention.ms", strconv.FormatInt(2*oldestCallEnd.Milliseconds(), 10)))
	}
	if ok {
		r.ok(checkTimestamps, t.name, "accepts and keeps records of calls that ended a week ago")
	}
}

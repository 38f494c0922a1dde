package producer

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/schemas"
)

// ReplayHeaders returns the headers of an event that is produced again: its own,
// when it was first produced (ms since 1970), and how many times it has been
// replayed, this one included.
func ReplayHeaders(own []kgo.RecordHeader, original int64, replays int) []kgo.RecordHeader {
	return append(own[:len(own):len(own)], number(schemas.HeaderOriginalTimestamp, original), number(schemas.HeaderReplays, int64(replays)))
}

// SplitReplayHeaders undoes ReplayHeaders; for an event that was not replayed it
// returns all headers, its record's timestamp and 0.
//
// A header of a replay counts only where a replay writes it: the two are the last
// ones. A producer may have headers of the same names, copied from one of enricher's
// outputs for example. They mean nothing here and stay with the event.
func SplitReplayHeaders(event *kgo.Record) (own []kgo.RecordHeader, original int64, replays int) {
	own = event.Headers
	if n := len(own) - 2; n >= 0 && own[n].Key == schemas.HeaderOriginalTimestamp && own[n+1].Key == schemas.HeaderReplays {
		at, err := strconv.ParseInt(string(own[n].Value), 10, 64)
		count, errCount := strconv.ParseUint(string(own[n+1].Value), 10, 31)
		if err == nil && errCount == nil && count > 0 {
			return own[:n:n], at, int(count)
		}
	}
	return own, event.Timestamp.UnixMilli(), 0
}

// IsReplayHeader reports whether a header has the name of one of a replay's.
func IsReplayHeader(name string) bool {
	return name == schemas.HeaderOriginalTimestamp || name == schemas.HeaderReplays
}

// OriginalTimestamp returns when the event was first produced, in ms since 1970.
func OriginalTimestamp(event *kgo.Record) int64 {
	_, original, _ := SplitReplayHeaders(event)
	return original
}

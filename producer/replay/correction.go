package replay

import (
	"bytes"
	"errors"
	"fmt"

	"enricher/schemas"
)

// Correction is a value to be sent instead of an event's own. The replaced value is
// kept in the journal.
type Correction struct {
	// Original is the value that was corrected. The event of another one is left
	// alone: the topic may have been re-created while someone was editing.
	Original []byte
	Value    []byte
}

// Correct returns the correction of an open dead letter's event, or an error that
// says why the value cannot replace that of the event.
func Correct(r *Record, value []byte) (*Correction, error) {
	if r.State != Open {
		return nil, fmt.Errorf("it is %s", r.State)
	}
	l := r.DeadLetter
	if l.Value != nil && bytes.Equal(l.Value, value) {
		return nil, errors.New("the value is unchanged")
	}
	event, err := schemas.ParseEvent(value)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the corrected value is still malformed: %w", err)
	case event.IsOtherCallback():
		return nil, fmt.Errorf("the corrected value is a callback of another type, %q, which would be skipped", event.Command)
	case r.CallID != "" && event.CallID != r.CallID && l.Reason != schemas.Rejected: // which is what was wrong
		return nil, fmt.Errorf("the corrected value has another CallId, %q instead of %q", event.CallID, r.CallID)
	}
	return &Correction{Original: l.Value, Value: value}, nil
}

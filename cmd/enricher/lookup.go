package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/hint"
	"enricher/fetch"
	"enricher/schemas"
)

type lookupCmd struct {
	CallIDs []string `arg:"" name:"callid" help:"CallIds to look up, one API request each."`

	config.APIFlags `group:"API:"`
}

// Example returns a command line for the help.
func (*lookupCmd) Example() string {
	return `enricher lookup --region singapore --sdk-app-id 1400000000 \
    --secret-key-file secret-key 5c2f7f0e-9d0b-4f4e-8a55-3d2a8f6f1b11`
}

// Run prints the call record and the enriched value of each CallId, or why there
// is none. The error says whether the API has no record or did not respond as it
// should, and so does the exit code.
func (c *lookupCmd) Run(ctx context.Context, k *kong.Kong) error {
	defer c.Client.Close()
	var missing, failed int
	var advice string // on the last request without a response
	for _, id := range c.CallIDs {
		resp := c.Client.Lookup(ctx, id, nil)
		switch {
		case resp.Verdict == fetch.Found:
			record, err := json.Marshal(resp.Record)
			if err != nil {
				return err
			}
			fmt.Fprintf(k.Stdout, "%s: found\nrecord   %s\nenriched %s\n", id, record, schemas.Enrich(resp.Record).Encode())
			continue
		case resp.Verdict.Good():
			missing++
		default:
			failed++
			if resp.Code == 0 && (resp.Label == "network" || resp.Label == "timeout") {
				advice = hint.NoResponse(&resp, c.Client.Proxy())
			}
		}
		fmt.Fprintf(k.Stdout, "%s: %s: %s\n", id, resp.Verdict, resp.Message)
	}
	n := len(c.CallIDs)
	var err error
	switch {
	case failed > 0 && missing > 0:
		err = fmt.Errorf("no usable response for %d of %d CallIds; no record of %d", failed, n, missing)
	case failed > 0:
		err = fmt.Errorf("no usable response for %d of %d CallIds", failed, n)
	case missing > 0:
		err = &noRecordError{missing, n}
	}
	if advice != "" {
		return hint.With(err, "%s", advice)
	}
	return err
}

// noRecordError reports that the API responded as it should, and has no record of
// some of the calls.
type noRecordError struct{ missing, of int }

func (e *noRecordError) Error() string {
	return fmt.Sprintf("no record of %d of %d CallIds", e.missing, e.of)
}

package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
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
// is none.
func (c *lookupCmd) Run(ctx context.Context, k *kong.Kong) error {
	defer c.Client.Close()
	missing := 0
	for _, id := range c.CallIDs {
		resp := c.Client.Lookup(ctx, id, nil)
		if resp.Verdict != fetch.Found {
			missing++
			fmt.Fprintf(k.Stdout, "%s: %s: %s\n", id, resp.Verdict, resp.Message)
			continue
		}
		record, err := json.Marshal(resp.Record)
		if err != nil {
			return err
		}
		fmt.Fprintf(k.Stdout, "%s: found\nrecord   %s\nenriched %s\n", id, record, schemas.Enrich(resp.Record).Encode())
	}
	if missing > 0 {
		return fmt.Errorf("%d of %d CallIds not found", missing, len(c.CallIDs))
	}
	return nil
}

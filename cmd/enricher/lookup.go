package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/alecthomas/kong"

	"enricher/fetch"
	"enricher/schemas"
)

type lookupCmd struct {
	CallIDs []string `arg:"" name:"callid" help:"Calls to look up, one request each."`

	apiFlags
}

// Run prints the record and the enriched value of each call, or why there is
// none.
func (c *lookupCmd) Run(ctx context.Context, k *kong.Kong) error {
	defer c.client.Close()
	missing := 0
	for _, id := range c.CallIDs {
		a := c.client.Lookup(ctx, id, nil)
		if a.Verdict != fetch.Found {
			missing++
			fmt.Fprintf(k.Stdout, "%s: %s: %s\n", id, a.Verdict, a.Message)
			continue
		}
		record, err := json.Marshal(a.Record)
		if err != nil {
			return err
		}
		fmt.Fprintf(k.Stdout, "%s: found\nrecord   %s\nenriched %s\n", id, record, schemas.Enrich(a.Record).Encode())
	}
	if missing > 0 {
		return fmt.Errorf("no record of %d of %d calls", missing, len(c.CallIDs))
	}
	return nil
}

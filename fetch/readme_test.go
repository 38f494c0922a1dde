package fetch_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"enricher/fetch"
)

// TestREADME: the README's table of codes is the program's.
func TestREADME(t *testing.T) {
	happens := map[fetch.Verdict]string{
		fetch.NotYet:          "asked again until the window is over, then a dead letter",
		fetch.Retry:           "asked again, later and later",
		fetch.Throttled:       "everybody pauses",
		fetch.AccountRejected: "the gate shuts until it is mended",
		fetch.Rejected:        "a dead letter, `rejected`",
	}
	var want strings.Builder
	want.WriteString("| code | name | means | what happens |\n| --- | --- | --- | --- |\n")
	for _, c := range fetch.Codes() {
		what := happens[c.Verdict]
		switch {
		case c.EscalateAfter > 0:
			what += fmt.Sprintf("; at the %drd time for one call the gate shuts", c.EscalateAfter)
		case c.Resign:
			what = "signed anew once; if that is refused too, the gate shuts"
		}
		fmt.Fprintf(&want, "| %d | `%s` | %s | %s |\n", c.Code, c.Name, c.Meaning, what)
	}
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), want.String()) {
		t.Errorf("README.md does not hold this table:\n%s", want.String())
	}
}

package harness

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFiguresAreEnforced compares the table "Figures" with the limits that its tests
// enforce.
func TestFiguresAreEnforced(t *testing.T) {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%v s", d.Seconds()) }
	const kill, rolling = "`TestKafkaKillInTransaction`", "`go run ./test/chaos -mode rolling`"
	const freeze, faults = "`go run ./test/chaos -mode freeze`", "`go run ./test/chaos`"
	atLeast := fmt.Sprintf("at least %d %%", MinRateUsedPercent)
	want := []string{ // limit and test of each row
		seconds(ReadersAfterRestart) + " | " + kill,
		seconds(OwnerAfterRestart) + " | " + kill,
		seconds(ReadersAfterTakeover) + " | " + kill,
		seconds(OwnerAfterTakeover) + " | " + kill,
		fmt.Sprint(MaxAbortedByJoins) + " | `TestJoinsAbortFewTransactions`",
		fmt.Sprint(MaxAbortedByRestart) + " | " + rolling,
		seconds(MaxPauseInRestart) + " | " + rolling,
		fmt.Sprint(MaxRequestsPerCallRestart) + " | " + rolling,
		seconds(MaxBackAfterFreeze) + " | " + freeze,
		seconds(MaxLatencyFrozenOwner) + " | " + freeze,
		seconds(MaxLatencyFreeze) + " | " + faults,
		seconds(MaxLatencyDamagedBatch) + " | " + faults,
		seconds(MaxLatencyLeaderless) + " | " + faults,
		seconds(MaxLatencyRefused) + " | " + faults,
		seconds(MaxLatencyForbidden) + " | " + faults,
		seconds(MaxLatencyThrottled) + " | " + faults,
		seconds(MaxLatencyFlapping) + " | " + faults,
		seconds(MaxLatencyOverlapping) + " | " + faults,
		seconds(ResumeAfterUnreadable) + " | `TestUnreadableEventsBlockTheirPartition`",
		atLeast + " | `TestRateLimitIsUsed`",
		atLeast + " | `go run ./test/chaos -mode rate-limit`",
	}
	doc, err := os.ReadFile("../../docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	_, figures, found := strings.Cut(string(doc), "\n## Figures\n")
	if !found {
		t.Fatal("no section Figures")
	}
	figures, _, _ = strings.Cut(figures, "\n## ")
	var got []string
	for _, row := range regexp.MustCompile(`(?m)^\| [^|]+ \| (.+) \|$`).FindAllStringSubmatch(figures, -1)[2:] {
		got = append(got, row[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if timeout := "a session timeout of " + seconds(KillSessionTimeout); !strings.Contains(figures, timeout) {
		t.Errorf("the text below the table does not name %s", timeout)
	}
}

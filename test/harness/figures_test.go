package harness

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const guarantees = "../../docs/guarantees.md"

func readGuarantees(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(guarantees)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestFiguresAreEnforced compares the table "Figures" with the limits that its tests
// enforce.
func TestFiguresAreEnforced(t *testing.T) {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%v s", d.Seconds()) }
	const kill, rolling = "`TestKafkaKillInTransaction`", "`go run ./test/chaos -mode rolling`"
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
		atLeast + " | `TestRateLimitIsUsed`",
		atLeast + " | `go run ./test/chaos -mode quota`",
	}
	doc := readGuarantees(t)
	_, figures, found := strings.Cut(doc, "\n## Figures\n")
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

// TestGuaranteesNameTests checks that every test that guarantees.md names exists. A
// pattern such as ^TestKafka stands for the tests whose names begin so.
func TestGuaranteesNameTests(t *testing.T) {
	var names []string
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(b), -1) {
			names = append(names, m[1])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bTest[A-Z]\w*`).FindAllString(readGuarantees(t), -1)
	if len(named) < 10 {
		t.Fatalf("guarantees.md names only %v", named)
	}
	for _, name := range named {
		if !slices.ContainsFunc(names, func(s string) bool { return strings.HasPrefix(s, name) }) {
			t.Errorf("guarantees.md names %s, which does not exist", name)
		}
	}
}

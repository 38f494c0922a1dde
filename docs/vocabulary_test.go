package docs_test

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// retired lists words that the glossary has replaced, so that they do not come
// back in code, messages, metrics or documents.
var retired = []retiredWord{
	{word: "gates?", instead: "circuit breaker; lookups are paused and resumed"},
	{word: "circuits?", instead: "circuit breaker, or api_down", except: []exception{
		{phrase: "circuit breakers?", reason: "the field's term"},
	}},
	{word: "halt(s|ed|ing)?", instead: "account_rejected, or pause"},
	{word: "slow-down", instead: "throttled"},
	{word: "flood guards?", instead: "nothing_found, or --max-consecutive-dead-letters"},
	{word: "letters?", instead: "dead letter", except: []exception{
		{phrase: "dead letters?", reason: "the term itself"},
	}},
	{word: "answers?|answering", instead: "response, respond", except: []exception{
		{phrase: "not answer", reason: "a result of a call, as the API has it"},
	}},
	{word: "answered", instead: "completed, acknowledged; with a response", except: []exception{
		{phrase: "answered calls?|calls? answered|answered true", reason: "people answer calls"},
		{files: "schemas/*", reason: "answered is a field of the enriched record"},
		{files: "docs/contract.md", reason: "the same"},
		{files: "deploy/recipes/*", reason: "the same"},
		{files: "cmd/enricher/internal/demo/view*.go", reason: "the demo shows an answered call"},
	}},
	{word: "quotas?", instead: "rate limit, rate limiter, share", except: []exception{
		{phrase: "(APIs?|API's|app's|its) ((own|request) )?quota|over (the )?quota", reason: "the vendor's word for its own limit"},
		{files: "fetch/fetchtest/*", reason: "it simulates the vendor's own limit"},
		{files: "docs/runbook.md", reason: "the operator has to ask the vendor about it"},
		{files: "deploy/*/alerts*.yaml", reason: "the same"},
	}},
	{word: "calls? (a|per|each) second", instead: "requests per second"},
	{word: "on the wire", instead: "in flight"},
	{word: "anew", instead: "again, new, re-created"},
	{word: "mend(s|ed|ing)?", instead: "fix"},
	{word: "heal(s|ed|ing)?", instead: "recover, fix"},
	{word: "nobody|everybody|somebody|anybody|whoever", instead: "the instance, client or group that is meant"},
	{word: "twins?", instead: "duplicate instance"},
	{word: "births?|(re)?born|incarnations?", instead: "assignment"},
	{word: "settl(e|es|ed|ing|ement)", instead: "reconcile, decide; --lookup-delay"},
	{word: "tells|told", instead: "reports, returns"},
	{word: "knows", instead: "has, tracks, can", except: []exception{
		{phrase: "knows no|knows nothing", reason: "says what a package does not depend on"},
		{phrase: "this one knows version", reason: "part of an error message that operators see and a test pins"},
	}},
	{word: "time-outs?", instead: "timeout"},
	{word: "heed(s|ed)?|in vain|for want of", instead: "the common word"},
	{word: "expel(s|led|ling)?", instead: "remove from the group"},
	{word: "black holes?", instead: "blackhole"},
	{word: "(an)?other kinds", instead: "other types"},
	{word: "oracles?", instead: "package audit"},
	{word: "gambles?|victims?|fates?|sacrifices?", instead: "scenario, child process, fault, absorb"},
	{word: "rights", instead: "permissions"},
	{word: "--start|--because", instead: "--auto-offset-reset, --note", except: []exception{
		{phrase: "--start-period", reason: "an option of Docker's HEALTHCHECK"},
	}},
	{word: "enricher lookups total|enricher lookup duration seconds|enricher cache requests total", instead: "the metric's new name"},
	{word: "enricher (events lost|session rebuilds total|refused partitions|offset metadata bytes|quota share)", instead: "the metric's or alert's new name"},
	{word: "design.md", instead: "architecture.md"},
}

// retiredWord is a word that must not be used. Words and phrases are regular
// expressions for whole words in any case. A space stands for whatever joins
// words: white space, a line break within a comment, a hyphen, an underscore or
// the capitals of an identifier. A hyphen stands for the last three only.
type retiredWord struct {
	word    string
	instead string
	except  []exception
}

// exception is where a retired word is right: within a phrase, or in files.
type exception struct {
	phrase string
	files  string // path.Match pattern; a * matches slashes too
	reason string
}

// joints are the places between the words of an identifier.
var joints = regexp.MustCompile(`([a-z0-9])([A-Z])`)

// normalise makes separate, lower-case words of identifiers. It keeps line breaks.
func normalise(text string) string {
	return strings.ToLower(strings.ReplaceAll(joints.ReplaceAllString(text, "$1-$2"), "_", "-"))
}

// compile returns a regular expression for normalised text.
func compile(words string) *regexp.Regexp {
	words = strings.ReplaceAll(strings.ReplaceAll(strings.ToLower(words), ".", `\.`), " ", `[\s/#*"':=-]+`)
	if strings.HasPrefix(words, "-") {
		return regexp.MustCompile(`(?:` + words + `)\b`)
	}
	return regexp.MustCompile(`\b(?:` + words + `)\b`)
}

// use is a retired word in a text.
type use struct {
	line int
	word string
}

// finder returns a function that finds the uses of the word in a file, given its
// path and normalised text.
func (w *retiredWord) finder() func(file, text string) []use {
	word := compile(w.word)
	var files []string
	var phrases []*regexp.Regexp
	for _, e := range w.except {
		if e.files != "" {
			files = append(files, e.files)
		} else {
			phrases = append(phrases, compile(e.phrase))
		}
	}
	return func(file, text string) []use {
		found := word.FindAllStringIndex(text, -1)
		if found == nil || slices.ContainsFunc(files, func(f string) bool { return matches(f, file) }) {
			return nil
		}
		var excused [][]int
		for _, p := range phrases {
			excused = append(excused, p.FindAllStringIndex(text, -1)...)
		}
		var uses []use
		for _, at := range found {
			within := func(s []int) bool { return s[0] <= at[0] && at[1] <= s[1] }
			if !slices.ContainsFunc(excused, within) {
				uses = append(uses, use{1 + strings.Count(text[:at[0]], "\n"), text[at[0]:at[1]]})
			}
		}
		return uses
	}
}

// matches reports whether a path matches a pattern, whose asterisks match slashes too.
func matches(pattern, file string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, "/", "|"), strings.ReplaceAll(file, "/", "|"))
	if err != nil {
		panic(err)
	}
	return ok
}

func TestRetiredWordsAreFound(t *testing.T) {
	for text, want := range map[string]string{
		"while the gate is shut":        "gate",
		"func gateShut() bool":          "gate",
		"enricher_gate_shut{":           "gate",
		"EnricherGateHalt":              "gate halt",
		"aggregate, 504 Gateway":        "",
		"a letter among letters":        "letter letters",
		"DeadLetter, dead_letter":       "",
		"every dead-letter record":      "",
		"a dead\n\t// letter's headers": "",
		"one answered call":             "",
		"no call was answered; it is":   "answered",
		"SlowDown, slow_down":           "slow-down slow-down",
		"to slow down":                  "",
		"a time-out, a timeout":         "time-out",
		"200 calls a second":            "calls a second",
		"200 calls\n// a second":        "calls\n// a second",
		"the API's quota, my quota":     "quota",
		"sent on the wire":              "on the wire",
		"--start=latest, at the start":  "--start",
		"enricher_lookups_total{code}":  "enricher-lookups-total",
	} {
		var got []string
		for _, w := range retired {
			for _, u := range w.finder()("file.go", normalise(text)) {
				got = append(got, u.word)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: found %q, want %q", text, got, want)
		}
	}
}

func TestNoRetiredWords(t *testing.T) {
	texts := readRepository(t)
	for _, w := range retired {
		find := w.finder()
		for _, file := range slices.Sorted(maps.Keys(texts)) {
			for _, u := range find(file, texts[file]) {
				t.Errorf("%s:%d: %q is retired: %s", file, u.line, u.word, w.instead)
			}
			if len(find(file, normalise(file))) > 0 {
				t.Errorf("%s: the file's name has a retired word: %s", file, w.instead)
			}
		}
	}
}

// readRepository returns the normalised text of every file, by its path.
func readRepository(t *testing.T) map[string]string {
	t.Helper()
	skip := []string{
		"docs/vocabulary_test.go", // it lists the words
		"LICENSE", "go.sum", "deploy/check/go.sum",
		".git", "bin", // not of the repository
	}
	root := os.DirFS("..")
	texts := make(map[string]string)
	err := fs.WalkDir(root, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		skipped := slices.Contains(skip, file) || path.Base(file) == "fuzz" // inputs that a fuzz test made
		if entry.IsDir() && skipped {
			return fs.SkipDir
		}
		if skipped || !entry.Type().IsRegular() {
			return nil
		}
		text, err := fs.ReadFile(root, file)
		if err == nil && utf8.Valid(text) {
			texts[file] = normalise(string(text))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) < 100 {
		t.Fatalf("%d files: this is not the repository", len(texts))
	}
	return texts
}

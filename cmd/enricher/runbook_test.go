package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"enricher/cmd/enricher/internal/config"
	"enricher/fetch/fetchtest"
)

// TestRunbookCommands: with ENRICHER_CONFIG set, as the runbook says, every command
// of enricher in it is valid as it stands there.
func TestRunbookCommands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "runbook.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key := write("key", fetchtest.DemoKey+"\n")
	t.Setenv("ENRICHER_CONFIG", write("enricher.yaml", "brokers: kafka-1:9092\napi-url: https://api.example.com\nsdk-app-id: 1400000000\nsecret-key-file: "+key+"\n"))

	var commands []string
	for _, line := range regexp.MustCompile("(?m)^enricher .+$|`enricher [^`]+`").FindAllString(string(text), -1) {
		for command := range strings.SplitSeq(strings.Trim(line, "`"), " | ") { // a pipeline has other programs, too
			if strings.HasPrefix(command, "enricher ") {
				commands = append(commands, command)
			}
		}
	}
	if len(commands) < 20 {
		t.Errorf("%d commands found: the document has lost its form", len(commands))
	}
	placeholders := strings.NewReplacer("NEW", "singapore", "OLD", "tokyo")
	checked := 0
	for _, command := range commands {
		command, _, _ = strings.Cut(command, " # ")
		args := words(placeholders.Replace(command))[1:]
		if strings.Contains(command, "…") || !hasArguments(args) {
			continue // a mention, not a command to type
		}
		checked++
		src := config.NewSources("")
		kctx, err := newParser(src).Parse(args)
		if err == nil {
			err = src.Check(kctx)
		}
		if err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
	if checked < 12 {
		t.Errorf("%d commands checked", checked)
	}
}

// hasArguments reports whether a command is more than its name: one that needs
// arguments may be mentioned without them.
func hasArguments(args []string) bool {
	return len(args) > 1 && args[len(args)-1] != "replay" && args[len(args)-1] != "discard"
}

// words splits a command line as a shell does, with double quotes.
func words(line string) []string {
	var all []string
	for _, w := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line, -1) {
		all = append(all, strings.Trim(w, `"`))
	}
	return all
}

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"enricher/cmd/enricher/internal/config"
)

// help returns the help of a command, named by its full path.
func help(t *testing.T, command string) string {
	t.Helper()
	var out, errs bytes.Buffer
	args := slices.Concat(strings.Fields(command)[1:], []string{"--help"})
	if code := run(args, &out, &errs); code != 0 || errs.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, &errs)
	}
	return out.String()
}

// commands returns the full paths of all commands in the help, and of their groups.
func commands() []string {
	k := newParser(config.NewSources(""))
	all := []string{"enricher", "enricher config", "enricher dlq", "enricher schema"}
	for _, node := range k.Model.Leaves(true) {
		all = append(all, node.FullPath())
	}
	return all
}

func TestHelpEndsWithAWorkingExample(t *testing.T) {
	for _, command := range commands() {
		t.Run(command, func(t *testing.T) {
			_, example, ok := strings.Cut(help(t, command), "\nExample:\n  ")
			if !ok || !strings.HasPrefix(example, command) {
				t.Fatalf("the example is %q", example)
			}
			args := strings.Fields(strings.ReplaceAll(example, "\\\n", ""))
			if _, err := newParser(config.NewSources("")).Parse(args[1:]); err != nil {
				t.Error(err)
			}
			for line := range strings.Lines(example) {
				if n := len([]rune(strings.TrimRight("  "+line, "\n"))); n > 80 {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

func TestHelpGroupsFlags(t *testing.T) {
	for _, node := range newParser(config.NewSources("")).Model.Leaves(true) {
		for _, f := range node.Flags {
			if f.Group == nil && f.Name != "help" {
				t.Errorf("%s --%s is in no group", node.FullPath(), f.Name)
			}
		}
	}
	text := help(t, "enricher run")
	last := 0
	for _, group := range []string{"Flags:", "Kafka:", "API:", "Lookups:", "Output:", "Limits:", "Service:", "Example:"} {
		at := strings.Index(text, "\n"+group+"\n")
		if at < last {
			t.Errorf("%s is missing or out of order in\n%s", group, text)
		}
		last = at
	}
}

func TestEveryFlagIsExplainedWithItsDefault(t *testing.T) {
	for _, node := range newParser(config.NewSources("")).Model.Leaves(true) {
		for _, f := range node.Flags {
			if f.Help == "" {
				t.Errorf("%s --%s has no help", node.FullPath(), f.Name)
			}
			if f.Default != "" && f.PlaceHolder != "" {
				t.Errorf("%s --%s: the placeholder %s hides the default %s", node.FullPath(), f.Name, f.PlaceHolder, f.Default)
			}
		}
	}
}

// Package usage describes the command line to people and shells: a manual page, and
// the words that complete a line. Both come from the parser's own model, so that they
// have every command and flag. It reads no configuration and runs nothing.
package usage

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
)

// Word is a word that completes a command line.
type Word struct{ Text, Help string }

// Complete returns the words that can replace the last one, which may be empty. There
// are none where any value is allowed, such as the name of a file.
func Complete(app *kong.Node, words []string) []Word {
	if len(words) == 0 {
		words = []string{""}
	}
	node, open := app, (*kong.Flag)(nil) // the flag whose value comes next
	for i, w := range words[:len(words)-1] {
		name, _, joined := strings.Cut(w, "=")
		switch {
		case w == "=" && i > 0: // bash makes a word of it
			open = flagOf(node, words[i-1])
		case open != nil:
			open = nil
		case strings.HasPrefix(w, "--"):
			if open = flagOf(node, name); open != nil && (joined || open.IsBool()) {
				open = nil
			}
		default:
			if child := childOf(node, w); child != nil {
				node = child
			}
		}
	}
	last := words[len(words)-1]
	if name, _, joined := strings.Cut(last, "="); joined && name != "" {
		return matching(last, values(flagOf(node, name), name+"="))
	}
	if open != nil {
		return matching(strings.TrimPrefix(last, "="), values(open, ""))
	}
	if strings.HasPrefix(last, "-") {
		return matching(last, flags(node))
	}
	var all []Word
	for _, c := range node.Children {
		if !c.Hidden {
			all = append(all, Word{c.Name, c.Help})
		}
	}
	return matching(last, append(all, arguments(node)...))
}

func flagOf(node *kong.Node, word string) *kong.Flag {
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			if word == "--"+f.Name {
				return f
			}
		}
	}
	return nil
}

func childOf(node *kong.Node, word string) *kong.Node {
	if i := slices.IndexFunc(node.Children, func(c *kong.Node) bool { return c.Name == word }); i >= 0 {
		return node.Children[i]
	}
	return nil
}

func flags(node *kong.Node) []Word {
	var all []Word
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			all = append(all, Word{"--" + f.Name, f.Help})
		}
	}
	return all
}

// values returns the values of a flag behind a prefix.
func values(f *kong.Flag, prefix string) []Word {
	if f == nil {
		return nil
	}
	var all []Word
	for _, v := range config.Values(f.Value) {
		all = append(all, Word{prefix + v, ""})
	}
	return all
}

func arguments(node *kong.Node) []Word {
	var all []Word
	for _, p := range node.Positional {
		for _, v := range config.Values(p) {
			all = append(all, Word{v, ""})
		}
	}
	return all
}

func matching(prefix string, words []Word) []Word {
	return slices.DeleteFunc(words, func(w Word) bool { return !strings.HasPrefix(w.Text, prefix) })
}

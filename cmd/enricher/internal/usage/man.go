package usage

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
)

// WriteMan writes the manual page. notes are further sections: a title and a text
// each.
func WriteMan(w io.Writer, app *kong.Node, version string, notes ...[2]string) error {
	p := &page{}
	p.macro(".TH ENRICHER 1 \"\" %s", quoted("enricher "+version))
	p.macro(".SH NAME")
	p.text("enricher - " + app.Help)
	p.macro(".SH SYNOPSIS")
	p.macro(".B enricher")
	p.text("COMMAND [ARGUMENTS] [FLAGS]")
	for _, n := range notes {
		p.macro(".SH %s", n[0])
		p.text(n[1])
	}
	p.macro(".SH COMMANDS")
	for _, node := range app.Leaves(true) {
		p.command(app, node)
	}
	_, err := io.WriteString(w, p.String())
	return err
}

// page is a manual page in the making.
type page struct{ strings.Builder }

func (p *page) macro(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// text writes a line of text, which roff must not take for a macro.
func (p *page) text(s string) { p.macro("\\&%s", escaped(s)) }

func (p *page) command(app, node *kong.Node) {
	p.macro(".SS %s", quoted(escaped(strings.TrimPrefix(node.Summary(), app.Name+" "))))
	p.text(node.Help)
	for _, arg := range node.Positional {
		p.item(arg.Summary(), arg.Help)
	}
	group := ""
	for _, flags := range node.AllFlags(true) {
		for _, f := range flags {
			if f.Name == "help" {
				continue
			}
			if f.Group != nil && f.Group.Title != group {
				group = f.Group.Title
				p.macro(".PP\n.I %s", quoted(escaped(group)))
			}
			p.item(manFlag(f))
		}
	}
}

// manFlag returns a flag and what it means, with a default that holds everywhere.
func manFlag(f *kong.Flag) (word, help string) {
	word, help = "--"+f.Name, f.Help
	if f.PlaceHolder != "" {
		word += "=" + f.PlaceHolder
	}
	if text, ok := config.Default(f); ok {
		help += " Default: " + text + "."
	}
	return word, help
}

// item writes a word and what it means.
func (p *page) item(word, help string) {
	p.macro(".TP\n.B %s", quoted(escaped(word)))
	p.text(help)
}

// escaped returns a text in which roff finds nothing but characters. A bare hyphen
// would be typeset as one that cannot be copied into a shell.
func escaped(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", "\\(ga", "^", `\(ha`, "~", `\(ti`, "\n", " ").Replace(s)
	var b strings.Builder
	for _, r := range s {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}

// quoted returns a text as one argument of a macro.
func quoted(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\(dq`) + `"` }

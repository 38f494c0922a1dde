package terminal

import (
	"bytes"
	"testing"
)

func TestPrintableShowsControlCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"café 通话": "café 通话", "a\x1b[2Jb": `"a\x1b[2Jb"`, "a\nb": `"a\nb"`, "\xff": `"\xff"`, "": "",
	} {
		if got := Printable(in, 0); got != want {
			t.Errorf("Printable(%q) = %s, want %s", in, got, want)
		}
	}
	if got := Printable("abcdef", 4); got != "abc…" {
		t.Error(got)
	}
}

func TestStatusIsRedrawnBelowLines(t *testing.T) {
	var out bytes.Buffer
	w := NewTerminal(&out, func() int { return 80 })
	w.Status("1 of 2")
	w.Print("one line")
	w.Status("2 of 2")
	w.Keep()
	w.Clear() // nothing left to remove
	want := "\r\x1b[K1 of 2" + "\r\x1b[Kone line\n1 of 2" + "\r\x1b[K2 of 2" + "\n"
	if out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestStatusIsRemoved(t *testing.T) {
	var out bytes.Buffer
	w := NewTerminal(&out, func() int { return 80 })
	w.Status("1 of 2")
	out.Reset()
	w.Clear()
	w.Print("the end")
	if want := "\r\x1b[K" + "\r\x1b[Kthe end\n"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestStatusFitsTheTerminal(t *testing.T) {
	var out bytes.Buffer
	w := NewTerminal(&out, func() int { return 10 })
	w.Status("0123456789")
	if want := "\r\x1b[K01234567…"; out.String() != want {
		t.Errorf("printed %q, want %q", &out, want)
	}
}

func TestStatusIsALineElsewhere(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	w.Status("1 of %d", 2)
	w.Print("one line")
	w.Clear()
	w.Keep()
	if want := "1 of 2\none line\n"; out.String() != want || w.Width() != 80 {
		t.Errorf("printed %q, want %q, at a width of %d", &out, want, w.Width())
	}
}

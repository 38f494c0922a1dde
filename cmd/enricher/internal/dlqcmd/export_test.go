package dlqcmd

import (
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The fields of an export are those that docs/operations.md describes, by the names
// that other programs read.
func TestExportIsDocumented(t *testing.T) {
	manual, err := os.ReadFile("../../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(manual), "### Export of dead letters\n")
	section, _, _ = strings.Cut(section, "\n```")
	var documented []string
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, name := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
				documented = append(documented, name[1])
			}
		}
	}
	fields := jsonFields(reflect.TypeFor[exportedEntry]())
	slices.Sort(documented)
	slices.Sort(fields)
	if !slices.Equal(documented, fields) {
		t.Errorf("documented are\n%v, printed\n%v", documented, fields)
	}
}

func jsonFields(typ reflect.Type) []string {
	var names []string
	for f := range typ.Fields() {
		if f.Anonymous {
			names = append(names, jsonFields(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// Bytes that are not text are printed in base64, and nothing is not the same as an
// empty text.
func TestBytesText(t *testing.T) {
	for want, b := range map[string][]byte{
		`null`:                          nil,
		`{"text":""}`:                   {},
		`{"text":"{\"CallId\":\"ü\"}"}`: []byte(`{"CallId":"ü"}`),
		`{"base64":"H4sIAA=="}`:         {0x1f, 0x8b, 0x08, 0},
	} {
		if got, err := json.Marshal(newBytesText(b)); err != nil || string(got) != want {
			t.Errorf("%q is %s, %v; want %s", b, got, err, want)
		}
	}
}

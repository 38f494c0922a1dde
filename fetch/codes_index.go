package fetch

import (
	"fmt"
	"strconv"
)

// The indexes of codes. Building them panics on a repeated code or name, which
// fails every test run.
var (
	codeByNumber = indexCodes(func(r *CodeRow) int { return r.Code })
	codeByName   = indexCodes(func(r *CodeRow) string { return r.Name })
)

func indexCodes[K comparable](key func(*CodeRow) K) map[K]*CodeRow {
	m := make(map[K]*CodeRow, len(codes))
	for i := range codes {
		k := key(&codes[i])
		if _, twice := m[k]; twice {
			panic(fmt.Sprintf("fetch: the error table has two rows for %v", k))
		}
		m[k] = &codes[i]
	}
	return m
}

// Codes returns the error table, in the table's order.
func Codes() []CodeRow { return append([]CodeRow(nil), codes[:]...) }

// CodeByName returns the row with this name, so that other code need not repeat
// a number. It panics on a name that is not in the table: names are literals.
func CodeByName(name string) CodeRow {
	r, ok := codeByName[name]
	if !ok {
		panic("fetch: no such row in the error table: " + name)
	}
	return *r
}

// label returns the value of the metric label code.
func (r *CodeRow) label() string { return strconv.Itoa(r.Code) }

package main

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// list is a flag with several values: comma-separated, or given several times,
// or a list in the file.
type list []string

// byteSize is a number of bytes, given plain or in KiB, MiB or GiB.
type byteSize int64

// mappers reads every kind of value there is among the flags.
func mappers(in *inputs) []kong.Option {
	return []kong.Option{
		kong.TypeMapper(reflect.TypeFor[int](), mapper[int]{in, parseInt}),
		kong.TypeMapper(reflect.TypeFor[float64](), mapper[float64]{in, parseFloat}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), mapper[time.Duration]{in, parseDuration}),
		kong.TypeMapper(reflect.TypeFor[instant](), mapper[instant]{in, parseInstant}),
		kong.TypeMapper(reflect.TypeFor[byteSize](), mapper[byteSize]{in, parseByteSize}),
		kong.TypeMapper(reflect.TypeFor[bool](), boolMapper{mapper[bool]{in, parseBool}}),
		kong.TypeMapper(reflect.TypeFor[list](), listMapper{}),
	}
}

// mapper is a kong.Mapper that notes a value it cannot read and goes on, so that
// the next one is looked at as well.
type mapper[T any] struct {
	in    *inputs
	parse func(string) (T, error)
}

// Decode implements kong.Mapper.
func (m mapper[T]) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	token, err := ctx.Scan.PopValue("value")
	if err != nil {
		return err
	}
	text := fmt.Sprint(token.Value)
	v, err := m.parse(text)
	if err != nil {
		m.in.problem(ctx.Value.Name, "%q %v", text, err)
		return nil
	}
	target.Set(reflect.ValueOf(v))
	return nil
}

// boolMapper reads flags that may stand without a value.
type boolMapper struct{ mapper[bool] }

// IsBool implements kong.BoolMapper.
func (boolMapper) IsBool() bool { return true }

// Decode implements kong.Mapper.
func (m boolMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	return m.mapper.Decode(ctx, target)
}

type listMapper struct{}

// Decode implements kong.Mapper.
func (listMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	token, err := ctx.Scan.PopValue("list")
	if err != nil {
		return err
	}
	l := target.Interface().(list)
	for item := range strings.SplitSeq(fmt.Sprint(token.Value), ",") {
		if item = strings.TrimSpace(item); item != "" {
			l = append(l, item)
		}
	}
	target.Set(reflect.ValueOf(l))
	return nil
}

func parseInt(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errors.New("is not a whole number")
	}
	return n, nil
}

func parseFloat(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, errors.New("is not a number")
	}
	return f, nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New("is not a duration, such as 500ms, 5s or 2m")
	}
	return d, nil
}

func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, errors.New("is neither true nor false")
	}
	return b, nil
}

func parseByteSize(s string) (byteSize, error) {
	bad := errors.New("is not a size in bytes, such as 1048576, 512KiB, 256MiB or 2GiB")
	digits, unit := s, int64(1)
	for suffix, n := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if d, ok := strings.CutSuffix(s, suffix); ok {
			digits, unit = strings.TrimSpace(d), n
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/unit || n < math.MinInt64/unit {
		return 0, bad
	}
	return byteSize(n * unit), nil
}

// nearest is the known word most like a misspelt one; "" when none is close.
func nearest(word string, known []string) string {
	best, at := "", 4
	for _, k := range known {
		if d := distance(word, k); d < at && d < len(k) {
			best, at = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop or change to get from a to b
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

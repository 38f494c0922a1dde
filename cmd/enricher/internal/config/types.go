package config

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// List is the type of a flag with several values: separated by commas, given
// several times, or a list in the file.
type List []string

// ByteSize is a number of bytes, written as a plain number or in KiB, MiB or GiB.
type ByteSize int64

// String returns the size as it is written: in the largest unit that divides it.
func (b ByteSize) String() string {
	for _, unit := range []struct {
		bytes ByteSize
		name  string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if b != 0 && b%unit.bytes == 0 {
			return strconv.FormatInt(int64(b/unit.bytes), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Time is a point in time, written as such or as an age.
type Time struct{ time.Time }

// mappers reads every type of value that a flag may have.
func mappers(src *Sources) []kong.Option {
	return []kong.Option{
		kong.KindMapper(reflect.String, mapper[string]{src, parseString}),
		kong.TypeMapper(reflect.TypeFor[int](), mapper[int]{src, parseInt}),
		kong.TypeMapper(reflect.TypeFor[float64](), mapper[float64]{src, parseFloat}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), mapper[time.Duration]{src, parseDuration}),
		kong.TypeMapper(reflect.TypeFor[Time](), mapper[Time]{src, ParseTime}),
		kong.TypeMapper(reflect.TypeFor[ByteSize](), mapper[ByteSize]{src, parseByteSize}),
		kong.TypeMapper(reflect.TypeFor[bool](), boolMapper{mapper[bool]{src, parseBool}}),
		kong.TypeMapper(reflect.TypeFor[List](), listMapper{src}),
	}
}

// mapper is a kong.Mapper that records a value it cannot read and goes on, so that
// the values after it are checked as well.
type mapper[T any] struct {
	src   *Sources
	parse func(string) (T, error)
}

// Decode implements kong.Mapper.
func (m mapper[T]) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	text, ok := m.src.popValue(ctx)
	if !ok {
		return nil
	}
	v, err := m.parse(text)
	if err != nil {
		m.src.Problem(ctx.Value.Name, "%q %v", text, err)
		return nil
	}
	target.Set(reflect.ValueOf(v))
	return nil
}

// popValue takes the value of a flag from the command line. It records a problem
// and returns false when there is none, or when the next argument starts with a
// dash and so might be a flag itself.
func (src *Sources) popValue(ctx *kong.DecodeContext) (string, bool) {
	flag, token := ctx.Value.Name, ctx.Scan.Pop()
	text := token.String()
	name, _, _ := strings.Cut(strings.TrimPrefix(text, "--"), "=")
	switch {
	case token.IsValue():
		return text, true
	case token.IsEOL():
		src.Problem(flag, "needs a value")
	case strings.HasPrefix(text, "--") && slices.Contains(src.flags, name):
		ctx.Scan.PushToken(token)
		src.Problem(flag, "needs a value before --%s", name)
	default:
		src.Problem(flag, "a value that starts with a dash must be joined to its flag: --%s=%s", flag, text)
	}
	return "", false
}

// boolMapper reads flags whose value may be omitted.
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

type listMapper struct{ src *Sources }

// Decode implements kong.Mapper.
func (m listMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	text, ok := m.src.popValue(ctx)
	if !ok {
		return nil
	}
	l := target.Interface().(List)
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			l = append(l, item)
		}
	}
	target.Set(reflect.ValueOf(l))
	return nil
}

func parseString(s string) (string, error) { return s, nil }

func parseInt(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errors.New("must be an integer")
	}
	return n, nil
}

func parseFloat(s string) (float64, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, errors.New("must be a number")
	}
	return f, nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New("is not a valid duration; use for example 500ms, 5s or 2m")
	}
	return d, nil
}

func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, errors.New("must be true or false")
	}
	return b, nil
}

func parseByteSize(s string) (ByteSize, error) {
	bad := errors.New("is not a valid size; use for example 1048576, 512KiB, 256MiB or 2GiB")
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
	return ByteSize(n * unit), nil
}

// ParseTime reads a time, a day, or an age before now.
func ParseTime(s string) (Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return Time{t}, nil
		}
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return Time{time.Now().Add(-time.Duration(n) * 24 * time.Hour)}, nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return Time{time.Now().Add(-d)}, nil
	}
	return Time{}, errors.New("is not a valid time; use 2026-01-31T15:04:05Z, 2026-01-31, 90m or 3d")
}

// nearest returns the known word closest to a misspelt one, or "" if none is
// close.
func nearest(word string, known []string) string {
	best, at := "", 4
	for _, k := range known {
		if d := distance(word, k); d < at && d < len(k) {
			best, at = k, d
		}
	}
	return best
}

// distance returns the number of characters to insert, delete or change to get
// from a to b (Levenshtein).
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

package config

import (
	"testing"
	"time"
)

func TestTimesAndAges(t *testing.T) {
	now := time.Now()
	for in, want := range map[string]time.Time{
		"2026-01-31T15:04:05Z":      time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC),
		"2026-01-31T15:04:05+08:00": time.Date(2026, 1, 31, 7, 4, 5, 0, time.UTC),
		"2026-01-31":                time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC),
		"90m":                       now.Add(-90 * time.Minute),
		"3d":                        now.Add(-72 * time.Hour),
	} {
		got, err := ParseTime(in)
		if d := got.Sub(want); err != nil || d < 0 || d > time.Minute {
			t.Errorf("%s is %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "-1h", "-3d", "3 d", "2026-13-01", "99999999d"} {
		if got, err := ParseTime(in); err == nil {
			t.Errorf("%q is %v, want an error", in, got)
		}
	}
}

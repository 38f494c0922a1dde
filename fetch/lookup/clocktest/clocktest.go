// Package clocktest makes times as a machine sees them that slept or whose clock was
// set: the time of day has moved and the clock of the process has not. No virtual
// clock can do that. It is for tests only.
package clocktest

import (
	"fmt"
	"time"
	"unsafe"
)

// Set returns t after the time of day was moved by d, which may be negative. The
// reading of the clock of the process, which t must have, stays the same.
//
// It depends on the layout of time.Time: the second word counts ns of that clock.
func Set(t time.Time, d time.Duration) time.Time {
	moved := t.Add(d)
	*(*int64)(unsafe.Add(unsafe.Pointer(&moved), unsafe.Sizeof(uint64(0)))) -= int64(d)
	if moved.Sub(t) != 0 || moved.Round(0).Sub(t.Round(0)) != d {
		panic(fmt.Sprintf("clocktest: %v cannot be moved: it lacks a reading, or time.Time has another layout", t))
	}
	return moved
}

package lookup_test

import "time"

// epoch is an arbitrary time for tests of what is pure.
var epoch = time.Unix(1764000000, 0)

// at returns a time so many seconds after epoch.
func at(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

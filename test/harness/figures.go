package harness

import "time"

// The limits that docs/guarantees.md promises under "Figures". The tests and the
// chaos runs enforce them.
const (
	// After kill -9 inside a transaction, when the same instance comes back.
	ReadersAfterRestart, OwnerAfterRestart = 5 * time.Second, 7 * time.Second
	// When another instance takes over, which does not know whose transaction it is.
	ReadersAfterTakeover, OwnerAfterTakeover = 25 * time.Second, 30 * time.Second
	// KillSessionTimeout is the session timeout in the kill tests.
	KillSessionTimeout = 1500 * time.Millisecond

	// MaxAbortedByJoins is for ten joins and leaves. A join that begins within the
	// few microseconds before a transaction does still aborts it.
	MaxAbortedByJoins = 2

	// A rolling restart of three instances. A rebalance can begin just before a
	// transaction does.
	MaxAbortedByRestart       = 2
	MaxPauseInRestart         = 5 * time.Second // of the outcomes of one partition
	MaxRequestsPerCallRestart = 1.01

	// After processes were frozen for up to a minute: until each has committed again,
	// and for the events of its partitions.
	MaxBackAfterFreeze    = 30 * time.Second
	MaxLatencyFrozenOwner = 60 * time.Second

	// The latency of the events that a fault spares, while it alone lasts.
	MaxLatencyFreeze       = 3 * time.Second
	MaxLatencyDamagedBatch = 3 * time.Second
	MaxLatencyLeaderless   = 3 * time.Second
	MaxLatencyRefused      = 3 * time.Second
	MaxLatencyForbidden    = 3 * time.Second
	MaxLatencyThrottled    = 3 * time.Second
	MaxLatencyFlapping     = 12 * time.Second

	// MaxLatencyOverlapping is for all events while faults of all kinds overlap. Most
	// of it is the time that a broker takes to start on a busy machine.
	MaxLatencyOverlapping = 4 * time.Minute

	// ResumeAfterUnreadable is when the first event that can be parsed is enriched,
	// behind 50,000 malformed ones of its partition that were withheld.
	ResumeAfterUnreadable = LookupDelay + 10*time.Second

	// MinRateUsedPercent is the share of --api-rate that members with a backlog use.
	MinRateUsedPercent = 98
)

// Package skip moves a consumer group past events that it is not to process: a
// batch that cannot be read, or an event that cannot be completed. What is skipped
// becomes dead letters in the transaction that commits the offset, so every event
// still has exactly one outcome.
//
// It works while the group has no members, as its only member: an instance that
// joins meanwhile either gets the partition, and nothing is skipped, or starts
// from what is committed here. It skips little at once, all of it or nothing.
package skip

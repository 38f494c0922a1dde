// Package replay sends dead letters back to the topics they came from, each
// exactly once, or marks them as done without sending them.
//
// What is done stands in the journal, a compacted topic: a letter with a marker
// there is done, and nothing else is remembered anywhere. A replayed event and
// its marker are one transaction. The transactional id is fixed per dead-letter
// topic, and a run reads the journal only after it has taken that id over from
// whoever had it; so of two runs at the same time one stops, and a run that
// died is gone on with by the next.
//
// The package refuses to change the dead-letter topic, to replay to it or to
// the journal, to touch a record that is no letter of ours, and to guess how a
// transaction ended.
package replay

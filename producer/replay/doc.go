// Package replay returns dead letters to the topics they came from, each exactly
// once, or marks them as discarded, or undoes that.
//
// A compacted topic, the journal, records which dead letters are completed: those
// that have a marker in it. Nothing else keeps that state. A replayed event and
// its marker are written in one transaction. The transactional id is the same for
// all replays of a dead-letter topic, and a run reads the journal only after it
// has fenced the previous owner of the id. So when two runs overlap, the earlier
// one stops, and a run continues where a crashed one stopped. Exactly-once rests on
// that alone. As a courtesy, a run also says in the journal that it is running, so
// that another one does not end it unasked.
//
// The package never modifies the dead-letter topic, never sends an event back to
// that topic or to the journal, leaves alone records that enricher did not write,
// and does not guess how a transaction ended.
package replay

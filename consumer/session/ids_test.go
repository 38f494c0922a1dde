package session

import "testing"

// No two instances share a transactional id, whatever their groups: each would
// fence the other for ever.
func TestTransactionalIDsAreDistinct(t *testing.T) {
	pairs := [][2]string{
		{"call-enricher", "old-0"}, {"call-enricher-old", "0"},
		{"a", "b/c"}, {"a/b", "c"}, {"a/b/c", ""}, {"a", "b%2Fc"}, {"a/", "b"}, {"a", "/b"},
	}
	seen := make(map[string][2]string)
	for _, p := range pairs {
		id := TransactionalID(p[0], p[1])
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q share the transactional id %q", p, other, id)
		}
		seen[id] = p
	}
	if id := TransactionalID("call-enricher", "enricher-0.example"); id != "call-enricher/enricher-0.example" {
		t.Errorf("an ordinary name is escaped: %q", id)
	}
}

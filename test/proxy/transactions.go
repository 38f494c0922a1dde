package proxy

import (
	"encoding/binary"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var errShort = errors.New("a message that is too short")

// Ends counts transactions by how they ended. Those of which the broker's
// answer was not seen, or was an error, are in neither.
type Ends struct{ Committed, Aborted int }

// transactions follows the client's transactions; of a producer there is only
// one at a time.
type transactions struct {
	open bool
	ends Ends
}

// InTransaction says whether a transaction's first request has gone to the
// broker, and its end has not. With transaction.version 2 the first is a Produce.
func (p *Proxy) InTransaction() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.txn.open
}

// Ends is how the transactions so far have ended.
func (p *Proxy) Ends() Ends {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.txn.ends
}

// requested is called for a request that the broker is about to have.
func (t *transactions) requested(key kmsg.Key) {
	switch key {
	case kmsg.Produce, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit:
		t.open = true
	case kmsg.EndTxn, kmsg.InitProducerID:
		t.open = false
	}
}

// answered is called for the answer to an EndTxn.
func (t *transactions) answered(r request, msg []byte) {
	resp := kmsg.NewPtrEndTxnResponse()
	resp.SetVersion(r.version)
	body := msg[4:]
	if resp.IsFlexible() {
		if len(body) == 0 || body[0] != 0 {
			return // tags in the header, which nobody sends yet
		}
		body = body[1:]
	}
	if resp.ReadFrom(body) != nil || resp.ErrorCode != 0 {
		return
	}
	if r.commit {
		t.ends.Committed++
	} else {
		t.ends.Aborted++
	}
}

// parseRequest reads what is of interest: key, version, client id (to skip it),
// and of an EndTxn whether it commits.
func parseRequest(msg []byte) (r request, correlation int32, err error) {
	if len(msg) < 10 {
		return r, 0, errShort
	}
	r.key = kmsg.Key(binary.BigEndian.Uint16(msg))
	r.version = int16(binary.BigEndian.Uint16(msg[2:]))
	correlation = int32(binary.BigEndian.Uint32(msg[4:]))
	if r.key != kmsg.EndTxn {
		return r, correlation, nil
	}
	body := msg[10:]
	if n := int16(binary.BigEndian.Uint16(msg[8:])); n > 0 {
		if len(body) < int(n) {
			return r, 0, errShort
		}
		body = body[n:]
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.SetVersion(r.version)
	if end.IsFlexible() {
		if len(body) == 0 || body[0] != 0 {
			return r, 0, errors.New("a request header with tags, which no client sends")
		}
		body = body[1:]
	}
	err = end.ReadFrom(body)
	r.commit = end.Commit
	return r, correlation, err
}

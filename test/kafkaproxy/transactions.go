package kafkaproxy

import "github.com/twmb/franz-go/pkg/kmsg"

// Ends counts transactions by how they ended. A transaction is in neither count if
// the broker's response was lost before the proxy, or was an error.
type Ends struct{ Committed, Aborted int }

// transactions tracks the transactions of the client, which has one at a time.
type transactions struct {
	open bool
	ends Ends
}

// InTransaction reports whether the first request of a transaction was forwarded
// to the broker, and its end was not. With transaction.version 2 the first request
// is a Produce.
func (p *Proxy) InTransaction() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.txn.open
}

// Ends returns how the transactions so far have ended.
func (p *Proxy) Ends() Ends {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.txn.ends
}

// requested is called for a request that is about to be forwarded.
func (p *Proxy) requested(key kmsg.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch key {
	case kmsg.Produce, kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit:
		p.txn.open = true
	case kmsg.EndTxn, kmsg.InitProducerID:
		p.txn.open = false
	}
}

// responded is called for a response that has come from the broker.
func (p *Proxy) responded(x *exchange, frame []byte) {
	if x.key != kmsg.EndTxn {
		return
	}
	req := decodeRequest(x.frame).(*kmsg.EndTxnRequest)
	if decodeResponse(req, frame).(*kmsg.EndTxnResponse).ErrorCode != 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if req.Commit {
		p.txn.ends.Committed++
	} else {
		p.txn.ends.Aborted++
	}
}

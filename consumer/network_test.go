package consumer_test

import (
	"context"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/test/kafkaproxy"
)

// network forwards to a kafkaproxy.Proxy, under the names that tests used before
// there was one.
type network struct {
	dial  kafkaproxy.DialFunc
	once  sync.Once
	proxy *kafkaproxy.Proxy
}

type fate struct {
	before, after func()
	lost, cut     bool
	answer        func(kmsg.Request, kmsg.Response)
}

func (n *network) get() *kafkaproxy.Proxy {
	n.once.Do(func() { n.proxy = kafkaproxy.New(n.dial) })
	return n.proxy
}

func (n *network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return n.get().DialContext(ctx, network, address)
}

func (n *network) set(cut bool) { n.get().SetOffline(cut) }
func (n *network) vanish()      { n.get().SetBlackhole(true) }
func (n *network) reappear()    { n.get().SetBlackhole(false) }

func (n *network) onRequest(f func(kmsg.Key) *fate) {
	n.get().OnRequest(func(k kmsg.Key) *kafkaproxy.Action {
		a := f(k)
		if a == nil {
			return nil
		}
		return &kafkaproxy.Action{Before: a.before, Drop: a.lost, After: a.after, Respond: a.answer, Disconnect: a.cut}
	})
}

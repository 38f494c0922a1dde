package fetch_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// nameserver is a DNS server with one address for every name.
type nameserver struct {
	conn    net.PacketConn
	address atomic.Pointer[net.IP]
}

func newNameserver(t *testing.T) *nameserver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameserver{conn: conn}
	t.Cleanup(func() { _ = conn.Close() })
	go s.serve()
	return s
}

func (s *nameserver) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		end := 12 // of the header; the name of the question follows
		for end < n && buf[end] != 0 {
			end += int(buf[end]) + 1
		}
		end += 5 // its zero, type and class
		reply := append([]byte(nil), buf[:end]...)
		binary.BigEndian.PutUint16(reply[2:], 0x8180) // a response without an error
		ofType := binary.BigEndian.Uint16(reply[end-4:])
		records := uint16(0)
		if ofType == 1 { // A
			records = 1
			reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
			reply = append(reply, s.address.Load().To4()...)
		}
		binary.BigEndian.PutUint16(reply[6:], records)
		binary.BigEndian.PutUint32(reply[8:], 0)
		_, _ = s.conn.WriteTo(reply, from)
	}
}

// resolver asks the server.
func (s *nameserver) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

// With a real name server and real connections: a change of the API's address is
// followed, whatever the old address does.
func TestAddressOfNameChanges(t *testing.T) {
	for name, c := range map[string]struct {
		age    time.Duration   // of connections; 0: the default, longer than the test
		old    fetchtest.Fault // at the old address, from some time before the change on
		failed bool
	}{
		"old address works":    {age: 300 * time.Millisecond},
		"old address fails":    {old: fetchtest.BadGateway(), failed: true},
		"old address is stuck": {old: fetchtest.Hang(), failed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			oldAPI, newAPI := fetchtest.New(fetchtest.Config{}), fetchtest.New(fetchtest.Config{})
			oldIP, newIP := net.IPv4(127, 0, 0, 2), net.IPv4(127, 0, 0, 3)
			first, err := net.Listen("tcp", oldIP.String()+":0")
			if err != nil {
				t.Skip("no further addresses of this machine:", err)
			}
			port := first.Addr().(*net.TCPAddr).Port
			second, err := net.Listen("tcp", fmt.Sprintf("%s:%d", newIP, port))
			if err != nil {
				t.Fatal(err)
			}
			for l, api := range map[net.Listener]*fetchtest.API{first: oldAPI, second: newAPI} {
				server := &http.Server{Handler: api}
				go func() { _ = server.Serve(l) }()
				t.Cleanup(func() { _ = server.Close() })
			}
			dns := newNameserver(t)
			dns.address.Store(&oldIP)
			client := newClient(t, fetch.ClientConfig{
				BaseURL: fmt.Sprintf("http://api.example:%d", port), Insecure: true, Timeout: 3100 * time.Millisecond,
				ConnectionAge: c.age, Dial: (&net.Dialer{Resolver: dns.resolver()}).DialContext,
			})
			var warm sync.WaitGroup
			for i := range 3 { // several connections
				warm.Go(func() {
					if a := send(t, client, oldAPI, fmt.Sprintf("warm-%d", i)); a.Verdict != fetch.Found {
						t.Errorf("%+v", a)
					}
				})
			}
			warm.Wait()
			if c.failed {
				oldAPI.SetOutage(c.old)
				<-time.After(time.Second) // no good response lately
				if a := send(t, client, oldAPI, "failing"); a.Verdict != fetch.Retry {
					t.Errorf("%+v", a)
				}
			}
			dns.address.Store(&newIP)
			if !c.failed {
				for deadline := time.Now().Add(c.age); time.Now().Before(deadline); {
					if a := send(t, client, oldAPI, "busy"); a.Verdict != fetch.Found {
						t.Errorf("%+v", a)
					}
				}
			}
			before := oldAPI.Requests()
			if a := send(t, client, newAPI, "after"); a.Verdict != fetch.Found || newAPI.Requests() == 0 || oldAPI.Requests() > before {
				t.Errorf("%d requests to the old address, %d to the new one: %+v", oldAPI.Requests()-before, newAPI.Requests(), a)
			}
		})
	}
}

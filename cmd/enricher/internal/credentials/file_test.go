package credentials

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// A file is read whenever its credential is needed. One that cannot be used replaces
// nothing, and is a problem that names the file until it is fixed.
func TestFilesAreReadAgain(t *testing.T) {
	d := newDir(t)
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	for name, test := range map[string]struct {
		old, replaced string // contents
		garbage       string
		open          func(path string) (get func() string, problem func(time.Time) *Error)
	}{
		"password": {
			old: planted + "1\n", replaced: planted + "2\r\n", garbage: "two\n" + planted,
			open: func(path string) (func() string, func(time.Time) *Error) {
				f, err := openText("sasl-password-file", path)
				if err != nil {
					t.Fatal(err)
				}
				return func() string { return f.get() + "\n" }, f.problem
			},
		},
		"token": {
			old: planted + "1", replaced: jwt("me", time.Now().Add(time.Hour)), garbage: "<html> " + planted,
			open: func(path string) (func() string, func(time.Time) *Error) {
				f, err := openToken("oauth-token-file", path)
				if err != nil {
					t.Fatal(err)
				}
				return func() string { return f.get().text }, f.problem
			},
		},
		"CA": {
			old: a.pem, replaced: b.pem, garbage: planted,
			open: func(path string) (func() string, func(time.Time) *Error) {
				f, err := openCA("tls-ca", path)
				if err != nil {
					t.Fatal(err)
				}
				return func() string { return string(f.get().pem) }, f.problem
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := d.write(name, test.old)
			get, problem := test.open(path)
			expect := func(content string) {
				t.Helper()
				if got := get(); strings.TrimSpace(got) != strings.TrimSpace(content) {
					t.Errorf("got %q, want %q", got, content)
				}
			}
			expect(test.old)
			d.write(name, test.replaced)
			expect(test.replaced)
			for what, broken := range map[string]func(){
				"emptied": func() { d.write(name, "") },
				"blank":   func() { d.write(name, "\n") },
				"garbage": func() { d.write(name, test.garbage) },
				"endless": func() { d.write(name, strings.Repeat(planted+"\n", maxFileBytes/10)) },
				"removed": func() {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				},
			} {
				broken()
				expect(test.replaced)
				p := problem(time.Now())
				if p == nil || !strings.Contains(p.Error(), path) || !strings.Contains(p.Error(), "still in use") {
					t.Errorf("%s: %v", what, p)
				} else {
					assertNoLeak(t, p.Error())
				}
				d.write(name, test.replaced)
				expect(test.replaced)
				if p := problem(time.Now()); p != nil {
					t.Errorf("still a problem: %v", p)
				}
			}
			d.write(name, test.old)
			expect(test.old)
		})
	}
}

// A certificate that was replaced before its key does not take effect alone.
func TestPairIsReplacedAsAWhole(t *testing.T) {
	d, ca := newDir(t), newAuthority(t, "ca")
	cert1, key1, _ := ca.issue("one", time.Hour)
	cert2, key2, _ := ca.issue("two", time.Hour)
	f, err := openPair("tls-cert", d.write("cert", cert1), d.write("key", key1))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(name string, usable bool) {
		t.Helper()
		if got := f.get().Leaf.Subject.CommonName; got != name {
			t.Errorf("the certificate of %q is used, want %q", got, name)
		}
		if p := f.problem(time.Now()); (p == nil) != usable {
			t.Errorf("problem: %v", p)
		} else if p != nil && (!strings.Contains(p.Error(), d.file("key")) || p.Flag != "tls-cert") {
			t.Errorf("%v does not name the files", p)
		}
	}
	expect("one", true)
	d.write("cert", cert2)
	expect("one", false)
	d.write("key", "")
	expect("one", false)
	d.write("key", key2)
	expect("two", true)
}

// What becomes unusable is logged and reported within a second, once, even if no
// connection is opened, and so is what can be used again.
func TestProblemsAreReportedAtOnce(t *testing.T) {
	d, ca := newDir(t), newAuthority(t, "ca")
	synctest.Test(t, func(t *testing.T) {
		short := newAuthority(t, "short") // by the clock of the bubble
		cert, key, _ := short.issue("client", time.Hour)
		paths := map[string]string{
			"tls-ca": d.write("ca", ca.pem), "tls-cert": d.write("cert", cert), "sasl-password-file": d.write("password", planted+"\n"),
		}
		c := open(t, Config{
			CA: paths["tls-ca"], Cert: paths["tls-cert"], Key: d.write("key", key),
			Mechanism: Plain, User: "u", PasswordFile: paths["sasl-password-file"],
		})
		core, logs := observer.New(zap.InfoLevel)
		go c.Watch(t.Context(), zap.New(core))
		<-time.After(10 * time.Minute)
		if n := logs.Len(); n > 0 {
			t.Fatalf("%d log lines without a problem: %v", n, logs.All())
		}
		for flag, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				<-time.After(watchInterval + time.Millisecond)
				problems := c.Problems()
				if len(problems) != 1 || !strings.Contains(problems[0].Error(), "--"+flag+": ") || !strings.Contains(problems[0].Error(), "file "+path+" is empty") {
					t.Errorf("%v", problems)
				}
				<-time.After(time.Minute)
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				<-time.After(watchInterval + time.Millisecond)
				if problems := c.Problems(); len(problems) > 0 {
					t.Errorf("still %v", problems)
				}
			}
		}
		lines := logs.TakeAll()
		if len(lines) != 2*2*len(paths) {
			t.Errorf("%d log lines, want one for each change: %v", len(lines), lines)
		}
		<-time.After(time.Hour)
		if p := c.Problems(); len(p) != 1 || !strings.Contains(p[0].Error(), "--tls-cert: file "+paths["tls-cert"]+" expired at") {
			t.Errorf("the certificate has expired: %v", p)
		}
		for _, l := range append(lines, logs.All()...) {
			assertNoLeak(t, l.Message, fmt.Sprint(l.ContextMap()))
			if l.Level > zapcore.WarnLevel {
				t.Errorf("%v", l)
			}
		}
	})
}

// Old brokers are trusted by the old CA and new ones by the new, without a restart;
// an untrusted or misnamed one is refused as without --tls-ca.
func TestBrokersAreVerifiedAgainstTheFile(t *testing.T) {
	d := newDir(t)
	before, after := newAuthority(t, "before"), newAuthority(t, "after")
	c := open(t, Config{CA: d.write("ca", before.pem)})
	handshake := func(signer *authority, ip net.IP, host string) error {
		t.Helper()
		_, _, pair := signer.issueFor(ip, "broker", time.Hour)
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				_ = conn.(*tls.Conn).Handshake() // the client reports it
				_ = conn.Close()
			}
		}()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := c.dial(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	here, elsewhere := net.IPv4(127, 0, 0, 1), net.IPv4(10, 0, 0, 1)
	for range 2 {
		d.write("ca", before.pem)
		if err := handshake(before, here, "127.0.0.1"); err != nil {
			t.Error(err)
		}
		if err := handshake(after, here, "127.0.0.1"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("%v, want unknown authority", err)
		}
		if err := handshake(before, here, "localhost"); err == nil || !strings.Contains(err.Error(), "localhost") {
			t.Errorf("%v, want a wrong name", err)
		}
		if err := handshake(before, elsewhere, "127.0.0.1"); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%v, want a wrong address", err)
		}
		d.write("ca", "")
		if err := handshake(before, here, "127.0.0.1"); err != nil {
			t.Errorf("an empty file has replaced the CA: %v", err)
		}
		d.write("ca", after.pem)
		if err := handshake(after, here, "127.0.0.1"); err != nil {
			t.Error(err)
		}
		if err := handshake(before, here, "127.0.0.1"); err == nil {
			t.Error("the old CA is still trusted")
		}
	}
}
